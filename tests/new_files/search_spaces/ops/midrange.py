"""The midrange as a channel squeeze.

Rider, "The Midrange of a Sample as an Estimator of the Population Midrange", Journal of the
American Statistical Association 1957.
"""

from __future__ import annotations

from torch import Tensor

from search_spaces.ops.registry import register_op


@register_op("channel_squeeze", "midrange", source="Rider 1957")
def midrange(x: Tensor) -> Tensor:
    """(max(x) + min(x)) / 2 over positions: (B, C, H, W) to (B, C, 1, 1)."""
    return (x.amax((2, 3), keepdim=True) + x.amin((2, 3), keepdim=True)) / 2
