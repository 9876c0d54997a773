"""The backbones, one file a family, in one catalogue; `timm:NAME` reaches those of timm.

Every file of this folder is part of the catalogue. Those that need torchvision or timm are loaded
only when one of their networks, or the whole catalogue, is asked for: that takes seconds, and a
worker that trains a CIFAR-style ResNet never asks.
"""

from search_spaces.backbones import resnet_cifar
from search_spaces.backbones.build import backbones, build_backbone, get_backbone
from search_spaces.backbones.registry import AttentionFactory, Backbone, register_backbone

__all__ = [
    "AttentionFactory",
    "Backbone",
    "backbones",
    "build_backbone",
    "get_backbone",
    "register_backbone",
    "resnet_cifar",
]
