"""The catalogue of backbones, one file per family; `timm:NAME` reaches those of timm.

`file:PATH` is a network of one's own.

Every file of this folder that registers one is part of the catalogue. A file is imported when one
of its networks is requested: importing torchvision and timm takes seconds, which a worker that
trains a CIFAR-style ResNet never spends.
"""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_attributes

if TYPE_CHECKING:
    from search_spaces.backbones.attention import AttentionFactory
    from search_spaces.backbones.build import backbones, build_backbone, get_backbone
    from search_spaces.backbones.registry import Backbone, register_backbone

__all__ = [
    "AttentionFactory",
    "Backbone",
    "backbones",
    "build_backbone",
    "get_backbone",
    "register_backbone",
]

__getattr__ = lazy_attributes(__name__, __file__)
