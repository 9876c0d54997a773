"""The contract by which attention enters a backbone."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

AttentionFactory = Callable[[int, tuple[int, int], int], nn.Module | None]
"""``factory(channels, size, stage)`` gives the attention module of one block of a backbone.

`channels` of the feature map, `size` its expected (H, W), `stage` counted from 0. None leaves the
block without attention. The module maps (B, C, H, W) to the same shape. It is applied to the
residual branch after its last normalisation, before the residual addition.
"""


def make_attention(
    factory: AttentionFactory, channels: int, size: tuple[int, int], stage: int
) -> nn.Module:
    """Call the factory; the identity, which has no parameters, stands for None.

    A builder calls it for block after block once the host is complete, so that neither the host's
    initialisation reaches the attention's parameters nor the attention's draws change the host.
    """
    attention = factory(channels, size, stage)
    return nn.Identity() if attention is None else attention
