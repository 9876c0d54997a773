"""The observer of a run, which is notified of its searches and final trainings as they run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sase_ray.results.history import Row, SearchOutcome
from sase_ray.results.search_id import SearchId

Event = tuple[str, tuple[Any, ...]]
"""Name of a method of `Observer`, and its arguments."""


class Observer:
    """Base class of the observers. A subclass overrides the methods it needs.

    In the process of a search, observers are notified of trials and evaluations. Those of the
    whole run are notified of the same events, and of everything else, in the driver.
    """

    def run_began(self, folder: Path) -> None:
        """Take the folder of the run; nothing of the run has been written yet."""

    def search_began(self, search: SearchId) -> None:
        """Take note that a search began; it may begin again if its process dies."""

    def trial_began(self, search: SearchId, trial: str) -> None:
        """Take note that a trial began; it may begin again if its process dies."""

    def evaluated(self, search: SearchId, row: Row) -> None:
        """Take a row of `History.evaluations`."""

    def trial_ended(self, search: SearchId, trial: str, reason: str | None) -> None:
        """Take note that a trial ended, and the reason if it failed."""

    def rewound(self, search: SearchId, events: int) -> None:
        """Take note that a resumed search leaves its earlier course.

        Args:
            search: Search.
            events: Number of its past evaluations and failures that still belong to it. It has
                been notified of exactly these.
        """

    def search_recalled(self, search: SearchId, outcome: SearchOutcome) -> None:
        """Take a search that had ended before the run was interrupted; `search_ended` follows."""

    def search_ended(self, search: SearchId, outcome: SearchOutcome) -> None:
        """Take the outcome of a search."""

    def search_failed(self, search: SearchId, reason: str) -> None:
        """Take note that a search ended without a result."""

    def finals_known(self, count: int) -> None:
        """Take the number of final trainings, once all are known."""

    def final_ended(self, module: str, failed: bool) -> None:
        """Take note that a final training ended."""

    def noted(self, text: str) -> None:
        """Take a sentence that the user should read."""

    def tick(self, last: bool) -> None:
        """Do periodic work.

        Args:
            last: Whether all searches, or all final trainings, have ended.
        """

    def run_ended(self) -> None:
        """Release resources; no event of the run will follow."""


def notify(observers: Iterable[Observer], event: str, *values: Any) -> None:
    """Notify observers of an event in their order.

    Args:
        observers: Observers to notify.
        event: Name of a method of `Observer`.
        values: Arguments of that method.
    """
    for observer in observers:
        getattr(observer, event)(*values)
