"""Catalogue of search strategies, which loads without torch and Ray."""

from __future__ import annotations

from typing import Any

from search_spaces.catalogue import Catalogue
from search_spaces.declarations import Subclassed

STRATEGIES: Catalogue[Any] = Catalogue("strategy", "sase_ray.strategies", Subclassed())
"""Subclasses of `Strategy` by name: every class of this folder that has its own name."""


def tries_blindly(label: str) -> bool:
    """Return whether a strategy of a run tries genotypes blindly, see `Strategy`.

    Args:
        label: Name in the run. One that is in no catalogue here, or starts from another's
            answers, does not.
    """
    return label in STRATEGIES and bool(STRATEGIES.find(label).tries_blindly)
