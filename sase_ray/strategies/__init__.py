"""The catalogue of search strategies. Every file of this folder that defines one is in it."""

from __future__ import annotations

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
