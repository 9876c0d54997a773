"""Looks strategies up and builds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sase_ray.strategies.contract import Strategy
from sase_ray.strategies.registry import STRATEGIES
from search_spaces.errors import UserError, explain_validation_error


def strategies() -> Mapping[str, type[Strategy]]:
    """Return the strategies by name, in the order of their names."""
    return {name: STRATEGIES.find(name) for name in sorted(STRATEGIES)}


def make_strategy(name: str, options: Mapping[str, Any] | None = None) -> Strategy:
    """Build a strategy by name.

    Args:
        name: of the catalogue; or X+Y for a strategy X of trials that starts from what Y found.
        options: its fields.

    Raises:
        UserError: no such strategy, or it does not take one of the options, or no warm start.
    """
    own, plus, parent = name.partition("+")
    kind: type[Strategy] = STRATEGIES.find(own)
    if plus:
        STRATEGIES.find(parent)
    if plus and not kind.takes_warm_start:
        raise UserError(f"strategy {name!r}: {own} takes no genotypes to start from")
    try:
        strategy = kind.model_validate(dict(options or {}))
    except ValidationError as error:
        raise explain_validation_error(error, kind, f"options of strategy {name!r}") from None
    strategy._label = name
    return strategy
