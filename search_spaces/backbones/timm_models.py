"""Convolutional networks of timm that have a place for attention, as `timm:NAME`.

Two kinds of network have one: the ResNets, at the `se` of each block, after its last
normalisation (where `block_args=dict(attn_layer=...)` puts it); and the networks that come with
squeeze and excitation (EfficientNet, MobileNetV3, RegNetY and more), where each such module is
replaced (as `se_layer` does). The second is inside the inverted bottleneck, not at its end.

The modules are put into the finished network rather than passed to timm: half of the networks with
squeeze and excitation refuse `se_layer` (MobileNetV3 does), `block_args` drops the other arguments
of a block, and pretrained weights are loaded before the attention is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from functools import partial
from typing import Any

import timm
from timm.layers import EffectiveSEModule, SEModule
from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

from search_spaces.backbones.attention import AttentionFactory, make_attention
from search_spaces.backbones.registry import TIMM_PREFIX, Backbone
from search_spaces.errors import UserError

NOMINAL_SIZE = (7, 7)
"""Map size that the attention is built for, since timm passes none to its attention layers."""

_RESIDUAL_BLOCKS = (BasicBlock, Bottleneck)
_SQUEEZE_EXCITATIONS = (SEModule, EffectiveSEModule, SqueezeExcite)


def timm_backbone(network: str) -> Backbone:
    """Make the catalogue entry of a timm network; it counts as one stage.

    Raises:
        UserError: There is no such network in timm.
    """
    if not timm.is_model(network):
        near = get_close_matches(network, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
        raise UserError(f"unknown timm network {network!r}: {hint}")
    return Backbone(
        name=f"{TIMM_PREFIX}{network}",
        builder=partial(_build, network),
        stages=1,
        summary=f"{network} of timm; options are those of timm.create_model, pretrained among them",
        source="https://github.com/huggingface/pytorch-image-models",
    )


def _build(
    network: str,
    *,
    num_classes: int,
    in_channels: int,
    input_size: tuple[int, int],
    attention: AttentionFactory,
    **options: Any,
) -> nn.Module:
    """Build a timm network; the factory's attention replaces the network's own, if it has any.

    The factory gets stage 0 and the size (7, 7) for every block, whatever `input_size` is.

    Raises:
        UserError: The network has no place for attention.
    """
    host = timm.create_model(network, num_classes=num_classes, in_chans=in_channels, **options)
    places = list(_places(host))
    if not places:
        raise UserError(
            f"timm network {network!r} has no place for attention: it takes neither attn_layer "
            "(as timm's ResNets do) nor se_layer (as EfficientNet and others with squeeze and "
            "excitation do)"
        )
    for block, attribute, channels in places:
        setattr(block, attribute, make_attention(attention, channels, NOMINAL_SIZE, 0))
    return host


def _places(host: nn.Module) -> Iterator[tuple[nn.Module, str, int]]:
    """Find (block, attribute, channels) of every place for attention, in the order of modules."""
    for path, module in host.named_modules():
        parent_path, _, attribute = path.rpartition(".")
        parent = host.get_submodule(parent_path)
        if isinstance(module, _RESIDUAL_BLOCKS):
            last = module.conv3 if isinstance(module, Bottleneck) else module.conv2
            yield module, "se", last.out_channels
        elif isinstance(module, _SQUEEZE_EXCITATIONS) and not isinstance(parent, _RESIDUAL_BLOCKS):
            yield parent, attribute, next(module.parameters()).shape[1]
