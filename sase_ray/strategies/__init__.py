"""Search strategies. Every file of this folder that defines one is in the catalogue."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_attributes

if TYPE_CHECKING:
    from sase_ray.strategies.black_box.base import BlackBox
    from sase_ray.strategies.catalogue import make_strategy, strategies
    from sase_ray.strategies.contract import Plan, SearchTask, Strategy, WarmStart
    from sase_ray.strategies.one_shot.base import OneShot

__all__ = [
    "BlackBox",
    "OneShot",
    "Plan",
    "SearchTask",
    "Strategy",
    "WarmStart",
    "make_strategy",
    "strategies",
]

__getattr__ = lazy_attributes(__name__, __file__)
