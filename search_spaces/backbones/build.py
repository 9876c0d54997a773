"""Look-up and construction of backbones."""

from __future__ import annotations

from typing import Any

from torch import nn

from search_spaces.backbones.attention import AttentionFactory
from search_spaces.backbones.registry import BACKBONES, OWN_PREFIX, TIMM_PREFIX, Backbone
from search_spaces.errors import UserError


def backbones() -> list[Backbone]:
    """Return the catalogue; this imports torchvision."""
    return BACKBONES.entries()


def get_backbone(name: str) -> Backbone:
    """Look up a backbone: a name of the catalogue, `timm:NAME`, or `file:PATH` for one's own.

    Raises:
        UserError: There is no such backbone.
    """
    if name.startswith(TIMM_PREFIX):
        # Imported only where it is needed: importing timm takes seconds.
        from search_spaces.backbones.timm_models import timm_backbone

        return timm_backbone(name.removeprefix(TIMM_PREFIX))
    if name.startswith(OWN_PREFIX):
        from search_spaces.backbones.own_network import own_backbone

        return own_backbone(name.removeprefix(OWN_PREFIX))
    return BACKBONES.find(name)


def build_backbone(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    input_size: tuple[int, int] = (32, 32),
    attention: AttentionFactory | None = None,
    **options: Any,
) -> nn.Module:
    """Build a backbone as a classifier (B, in_channels, H, W) -> (B, num_classes) logits.

    Args:
        name: A name of the catalogue, `timm:NAME`, or `file:PATH`.
        num_classes: Number of classes.
        in_channels: Number of channels of the images.
        input_size: (H, W) of the images, from which each stage's map size follows.
        attention: Factory of each block's attention module; None builds the plain host.
        options: Further arguments of the builder, e.g. `width` of the CIFAR-style ResNets.

    Raises:
        UserError: There is no such backbone, or it does not take one of the options.
    """
    backbone = get_backbone(name)
    for key in options.keys() & backbone.variant.keys():
        raise UserError(f"backbone {name!r} takes no option {key!r}: its name says it")
    try:
        return backbone.builder(
            num_classes=num_classes,
            in_channels=in_channels,
            input_size=input_size,
            attention=attention or (lambda channels, size, stage: None),
            **backbone.variant,
            **options,
        )
    except TypeError as error:
        unexpected = [key for key in options if f"'{key}'" in str(error)]
        if unexpected:
            raise UserError(f"backbone {name!r} takes no option {unexpected[0]!r}") from None
        raise
