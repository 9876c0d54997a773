"""Cost of passes over images, in training samples."""

from __future__ import annotations

import math
from fractions import Fraction

FORWARD_SHARE = Fraction(1, 3)
"""Cost of an image's forward pass, as a share of that of its forward and backward passes.

Measured as processor time on one core of an Intel Xeon (torch 2.11, best of five, the published
genotype and two random ones): 0.28 to 0.33 on resnet8 with width 8 and images of 8x8, 0.27 to 0.38
with images of 28x28.
"""


def samples_of_forward(images: int) -> int:
    """Return the training samples that forward passes over images cost, rounded up."""
    return math.ceil(images * FORWARD_SHARE)
