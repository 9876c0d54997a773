"""Lookup and construction of training-free scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.configurable import configure
from trainables.scores.contract import Score
from trainables.scores.registry import SCORES


def make_score(name: str, options: Mapping[str, Any] | None = None) -> Score:
    """Build a score by name.

    Args:
        name: Name in the catalogue.
        options: Fields of the score.

    Raises:
        UserError: There is no such score, or it does not accept one of the options.
    """
    return configure(SCORES, name, options)
