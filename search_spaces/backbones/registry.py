"""The catalogue of backbones, and the contract by which attention enters one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from search_spaces.errors import UserError

AttentionFactory = Callable[[int, tuple[int, int], int], nn.Module | None]
"""``factory(channels, size, stage)`` gives the attention module of one block of a backbone.

`channels` of the feature map, `size` its expected (H, W), `stage` counted from 0. None leaves the
block without attention. The module maps (B, C, H, W) to the same shape. It is applied to the
residual branch after its last normalisation, before the residual addition.
"""

TIMM_PREFIX = "timm:"

T = TypeVar("T", bound=Callable[..., nn.Module])


@dataclass(frozen=True)
class Backbone:
    """A catalogue row. `stages` is the number of stages that a per-stage genotype must have."""

    name: str
    builder: Callable[..., nn.Module]
    stages: int
    summary: str
    source: str


CATALOGUE: dict[str, Backbone] = {}


def register_backbone(name: str, *, stages: int, summary: str, source: str) -> Callable[[T], T]:
    """Enter a builder ``(num_classes, in_channels, input_size, attention, **options)``.

    Raises:
        UserError: the name is taken.
    """

    def enter(builder: T) -> T:
        if name in CATALOGUE:
            raise UserError(f"backbone {name!r} is already registered")
        CATALOGUE[name] = Backbone(name, builder, stages, summary, source)
        return builder

    return enter


def make_attention(
    factory: AttentionFactory, channels: int, size: tuple[int, int], stage: int
) -> nn.Module:
    """Call the factory; the identity, which has no parameters, stands for None.

    A builder calls it for block after block once the host is complete, so that neither the host's
    initialisation reaches the attention's parameters nor the attention's draws change the host.
    """
    attention = factory(channels, size, stage)
    return nn.Identity() if attention is None else attention
