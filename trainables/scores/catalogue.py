"""Looks training-free scores up and builds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.configurable import configure
from trainables.scores.contract import Score
from trainables.scores.registry import SCORES


def make_score(name: str, options: Mapping[str, Any] | None = None) -> Score:
    """Build a score by name.

    Args:
        name: of the catalogue.
        options: its fields.

    Raises:
        UserError: no such score, or it does not take one of the options.
    """
    return configure(SCORES, name, options)
