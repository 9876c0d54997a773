"""The handwritten digits of scikit-learn: the data set that is always available."""

from __future__ import annotations

from pathlib import Path

import torch

from trainables.data.augment import Augmentation
from trainables.data.dataset import RawData
from trainables.data.registry import register_dataset


@register_dataset(
    "digits",
    source="Alpaydin and Kaynak, 1998: https://archive.ics.uci.edu/dataset/80",
    summary="1,797 handwritten digits, 8x8, grey; part of scikit-learn",
    augmentation=Augmentation(padding=1),
)
def digits(root: Path | None) -> RawData:
    """Load the digits (1797, 1, 8, 8), with their levels 0 to 16 scaled to 0 to 255.

    `root` is not read. Digits are not flipped: a mirrored 2 is no digit.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    levels = torch.from_numpy(found.images).unsqueeze(1)
    images = (levels * 255 / 16).round().to(torch.uint8)
    labels = torch.from_numpy(found.target).to(torch.int64)
    return RawData(images, labels, tuple(str(name) for name in found.target_names))
