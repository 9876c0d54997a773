"""Lookup and construction of strategies by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sase_ray.results.search_id import split_label
from sase_ray.strategies.contract import Strategy
from sase_ray.strategies.registry import STRATEGIES
from search_spaces.configurable import configure
from search_spaces.errors import UserError


def strategies() -> Mapping[str, type[Strategy]]:
    """Return the strategies by name, in the order of their names."""
    return {name: STRATEGIES.find(name) for name in sorted(STRATEGIES)}


def make_strategy(name: str, options: Mapping[str, Any] | None = None) -> Strategy:
    """Build a strategy by name.

    Args:
        name: Name in the catalogue; or X+Y for a strategy X of trials that starts from the answers
            of Y.
        options: Values of the strategy's fields.

    Raises:
        UserError: There is no such strategy, or it does not take one of the options, or X takes no
            warm start.
    """
    own, parent = split_label(name)
    strategy: Strategy = configure(STRATEGIES, own, options)
    if parent is not None:
        STRATEGIES.find(parent)
        if not strategy.takes_warm_start:
            raise UserError(f"strategy {name!r}: {own} takes no genotypes to start from")
    strategy._starts_from = parent
    return strategy
