"""The catalogue of search strategies."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

from pydantic import ValidationError

from sase_ray.strategies.black_box.base import BlackBox
from sase_ray.strategies.contract import Strategy
from search_spaces.errors import UserError, explain_validation_error, unknown_name


@cache
def strategies() -> Mapping[str, type[Strategy]]:
    """Return the strategies by name, in the order of their names."""
    package = __name__.rpartition(".")[0]
    for module in walk_packages(import_module(package).__path__, f"{package}."):
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

    Args:
        name: of the catalogue; or X+Y for a strategy X of trials that starts from what Y found.
        options: its fields.

    Raises:
        UserError: no such strategy, or it does not take one of the options, or no warm start.
    """
    own, plus, parent = name.partition("+")
    for part in (own, parent) if plus else (own,):
        if part not in strategies():
            raise unknown_name("strategy", part, strategies())
    kind = strategies()[own]
    if plus and not (issubclass(kind, BlackBox) and kind.takes_warm_start):
        raise UserError(f"strategy {name!r}: {own} takes no genotypes to start from")
    try:
        strategy = kind.model_validate(dict(options or {}))
    except ValidationError as error:
        raise explain_validation_error(error, kind, f"options of strategy {name!r}") from None
    strategy._label = name
    return strategy
