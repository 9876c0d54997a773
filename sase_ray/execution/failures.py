"""Reasons of the failures of tasks and trials."""

from __future__ import annotations

from search_spaces.errors import UserError
from trainables.persistence.resumable import TrialFailedError
from trainables.persistence.store import StorageError


def reason_of(traceback: str) -> str:
    """Return the reason in a traceback: its last line, without the name of our own exceptions."""
    lines = traceback.strip().splitlines()
    if not lines:
        return "unknown error"
    for own in (TrialFailedError, StorageError, UserError):
        lines[-1] = lines[-1].removeprefix(f"{own.__module__}.{own.__qualname__}: ")
    return lines[-1].strip()


def reason(error: Exception) -> str:
    """Return why a Ray task failed: the last line of its exception."""
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines()
    return lines[-1].strip() if lines else type(cause).__name__


def check_storage(error: Exception) -> None:
    """Check that a Ray task did not fail because of its storage, which ends a run.

    Raises:
        StorageError: It did.
    """
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, StorageError) or f"{StorageError.__name__}: " in str(cause):
        raise StorageError(reason_of(str(cause))) from None
