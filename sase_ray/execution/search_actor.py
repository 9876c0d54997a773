"""The process of one search, which imports what a search needs, and nothing else of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ray.util.queue import Queue

from sase_ray.execution.observer import Observer
from sase_ray.execution.one_search import run_search
from sase_ray.results.history import Row, SearchOutcome
from sase_ray.results.search_id import SearchId
from sase_ray.strategies import SearchTask, Strategy, WarmStart
from trainables.planted.plant import Plant
from trainables.training.frozen_host import TrainedHost


class SearchProcess:
    """The actor that runs a search; if it dies, its reservations are released."""

    def run(
        self,
        strategy: Strategy,
        task: SearchTask,
        warm: WarmStart,
        host: TrainedHost | None,
        plant: Plant | None,
        events: Queue,
        settings: Mapping[str, Any],
    ) -> SearchOutcome:
        """Run a search to its end.

        Args:
            strategy: Strategy that searches.
            task: Task of the search.
            warm: Warm start of the search.
            host: Trained host that its candidates begin with, if any.
            plant: Plant that it is to find, if any.
            events: Queue of the run, which takes each `Event` of the search.
            settings: Further arguments of `run_search`.
        """
        task = replace(task, warm=warm)
        if host is not None:
            task = task.with_host(host if plant is None else plant.in_host(host))
        if plant is not None:
            task = replace(task, job=replace(task.job, data=plant.label_search(task.job.data)))
        return run_search(strategy, task, observers=[_Queued(events)], **settings)


class _Queued(Observer):
    """Observer that puts every event into a queue.

    An event is there once `put` returns, so the driver finds all of them when it learns of the end.
    """

    def __init__(self, events: Queue) -> None:
        self.events = events

    def trial_began(self, search: SearchId, trial: str) -> None:
        self.events.put(("trial_began", (search, trial)))

    def evaluated(self, search: SearchId, row: Row) -> None:
        self.events.put(("evaluated", (search, row)))

    def trial_ended(self, search: SearchId, trial: str, reason: str | None) -> None:
        self.events.put(("trial_ended", (search, trial, reason)))

    def rewound(self, search: SearchId, events: int) -> None:
        self.events.put(("rewound", (search, events)))

    def noted(self, text: str) -> None:
        self.events.put(("noted", (text,)))
