"""The catalogue of tasks, which loads without torch."""

from __future__ import annotations

from typing import Any

from search_spaces.catalogue import Catalogue
from search_spaces.declarations import Subclassed

TASKS: Catalogue[Any] = Catalogue("task", "trainables.tasks", Subclassed())
"""Subclasses of `Task` by name: every class of this folder with a name of its own."""
