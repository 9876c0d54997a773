"""Looks tasks up and builds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from search_spaces.errors import explain_validation_error
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
    kind: type[Task] = TASKS.find(name)
    try:
        return kind.model_validate(dict(options or {}))
    except ValidationError as error:
        raise explain_validation_error(error, kind, f"options of task {name!r}") from None
