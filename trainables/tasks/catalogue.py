"""Lookup and construction of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.configurable import configure
from trainables.tasks.contract import Task
from trainables.tasks.registry import TASKS


def make_task(name: str, options: Mapping[str, Any] | None = None) -> Task:
    """Build a task by name.

    Args:
        name: Name in the catalogue.
        options: Fields of the task.

    Raises:
        UserError: There is no such task, or it does not accept one of the options.
    """
    return configure(TASKS, name, options)
