"""Looks tasks up and builds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.configurable import configure
from trainables.tasks.contract import Task
from trainables.tasks.registry import TASKS


def make_task(name: str, options: Mapping[str, Any] | None = None) -> Task:
    """Build a task by name.

    Args:
        name: of the catalogue.
        options: its fields.

    Raises:
        UserError: no such task, or it does not take one of the options.
    """
    return configure(TASKS, name, options)
