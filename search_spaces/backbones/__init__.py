"""The backbones, one file a family, in one catalogue; `timm:NAME` reaches those of timm."""

from search_spaces.backbones import convnext, resnet, resnet_cifar
from search_spaces.backbones.registry import (
    AttentionFactory,
    Backbone,
    backbones,
    build_backbone,
    get_backbone,
    register_backbone,
)

__all__ = [
    "AttentionFactory",
    "Backbone",
    "backbones",
    "build_backbone",
    "convnext",
    "get_backbone",
    "register_backbone",
    "resnet",
    "resnet_cifar",
]
