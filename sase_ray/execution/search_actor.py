"""The process of one search. It imports what a search needs, and nothing of the run around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray

from sase_ray.execution.one_search import run_search
from sase_ray.execution.recorder import Listener
from sase_ray.results.history import SearchOutcome
from sase_ray.strategies import SearchTask, Strategy, WarmStart
from trainables.search_job import WarmHost


class SearchProcess:
    """Runs a search. Being an actor, it takes its reservations along if it dies."""

    def run(
        self,
        label: str,
        strategy: Strategy,
        task: SearchTask,
        warm: WarmStart,
        host: WarmHost | None,
        board: Any,
        settings: Mapping[str, Any],
    ) -> SearchOutcome:
        """Run it to its end.

        Args:
            label: of the search.
            strategy: that searches.
            task: what it is to do.
            warm: what it begins with.
            host: what its candidates begin with, if they do.
            board: handle of the run's `sase_ray.execution.event_queue.Board`.
            settings: more of `run_search`.
        """
        task = replace(task, warm=warm)
        if host is not None:
            task = task.with_host(host)
        listener = _Pinning(label, board)
        outcome = run_search(strategy, task, listener=listener, **settings)
        listener.wait()
        return outcome


class _Pinning(Listener):
    """Pins what a search sees."""

    def __init__(self, label: str, board: Any) -> None:
        self.label = label
        self.board = board
        self.last: Any = None

    def trial_began(self, trial: str) -> None:
        self.last = self.board.pin.remote((self.label, "trial_began", (trial,)))

    def evaluated(self, row: dict[str, Any]) -> None:
        self.last = self.board.pin.remote((self.label, "evaluated", (row,)))

    def trial_ended(self, trial: str, reason: str | None) -> None:
        self.last = self.board.pin.remote((self.label, "trial_ended", (trial, reason)))

    def noted(self, text: str) -> None:
        self.last = self.board.pin.remote((self.label, "noted", (text,)))

    def wait(self) -> None:
        """Wait until all is pinned, so that the driver finds it once it knows of the end."""
        if self.last is not None:
            ray.get(self.last)
