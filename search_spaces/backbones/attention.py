"""The contract by which attention enters a backbone."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

AttentionFactory = Callable[[int, tuple[int, int], int], nn.Module | None]
"""Type of ``factory(channels, size, stage)``, which gives the attention module of one block.

`channels` is the number of channels of the feature map, `size` its expected (H, W), and `stage`
the stage of the backbone, counted from 0. None leaves the block without attention. The module maps
(B, C, H, W) to the same shape. It is applied to the residual branch after its last normalisation,
before the residual addition.
"""


def make_attention(
    factory: AttentionFactory, channels: int, size: tuple[int, int], stage: int
) -> nn.Module:
    """Call the factory, and return the identity, which has no parameters, in place of None.

    A builder calls it for one block after another once the host is complete, so that the host's
    initialisation does not touch the attention's parameters, and the attention's random draws do
    not change the host.
    """
    attention = factory(channels, size, stage)
    return nn.Identity() if attention is None else attention
