"""The catalogue of search strategies. Every file of this folder that defines one is in it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from pydantic import ValidationError

from sase_ray.strategies.base import BlackBox, OneShot, Plan, SearchTask, Strategy
from search_spaces.errors import explain_validation_error, unknown_name

__all__ = [
    "BlackBox",
    "OneShot",
    "Plan",
    "SearchTask",
    "Strategy",
    "make_strategy",
    "strategies",
]


@cache
def strategies() -> Mapping[str, type[Strategy]]:
    """Return the strategies by name, in the order of their names."""
    for module in iter_modules(__path__, f"{__name__}."):
        import_module(module.name)
    found: dict[str, type[Strategy]] = {}
    pending = list(Strategy.__subclasses__())
    while pending:
        strategy = pending.pop()
        pending.extend(strategy.__subclasses__())
        if "name" in vars(strategy):
            found[strategy.name] = strategy
    return dict(sorted(found.items()))


def make_strategy(name: str, options: Mapping[str, Any] | None = None) -> Strategy:
    """Build a strategy by name.

    Raises:
        UserError: no such strategy, or it does not take one of the options.
    """
    if name not in strategies():
        raise unknown_name("strategy", name, strategies())
    strategy = strategies()[name]
    try:
        return strategy.model_validate(dict(options or {}))
    except ValidationError as error:
        raise explain_validation_error(error, strategy, f"options of strategy {name!r}") from None
