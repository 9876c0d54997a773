"""The median as a channel squeeze.

Huber, "Robust Statistics", Wiley 1981, section 1.3.
"""

from __future__ import annotations

from torch import Tensor

from search_spaces.ops.registry import register_op


@register_op("channel_squeeze", "median", source="Huber 1981")
def median(x: Tensor) -> Tensor:
    """Median over positions, the lower of the two middle ones: (B, C, H, W) to (B, C, 1, 1)."""
    return x.flatten(2).median(2).values[:, :, None, None]
