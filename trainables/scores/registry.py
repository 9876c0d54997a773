"""The catalogue of scores, which loads without torch."""

from __future__ import annotations

from typing import Any

from search_spaces.catalogue import Catalogue
from search_spaces.declarations import Subclassed

SCORES: Catalogue[Any] = Catalogue("score", "trainables.scores", Subclassed())
"""Subclasses of `Score` by name: every class of this folder with a name of its own."""
