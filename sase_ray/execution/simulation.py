"""Searches on a table in place of training: the same searchers and schedulers, a simulated clock.

A strategy sees no difference: `SearchLogic` decides here and under Ray Tune; a test runs both.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from ray.tune.result import DONE, TRAINING_ITERATION

from sase_ray.execution.budget import Budget
from sase_ray.execution.search_logic import LiveTrial, SearchLogic
from sase_ray.results.history import History
from sase_ray.strategies import SearchTask, Strategy
from sase_ray.tabular_benchmark.benchmark import TableEntry, TabularBenchmark
from search_spaces.genotype import Genotype
from trainables.search_job import SearchJob
from trainables.tasks.classification import CLASSIFICATION

Lookup = Callable[[Genotype, int], TableEntry]
"""Function from a genotype and an epoch to what a trial sees then."""


@dataclass(frozen=True)
class TableJob(SearchJob):
    """A search job whose trials are looked up: it has costs, but neither images nor a network."""

    table_samples_per_epoch: int = 0
    table_samples_of_host: int = 0

    @property
    def samples_per_epoch(self) -> int:
        """Recorded samples of an epoch."""
        return self.table_samples_per_epoch

    @property
    def samples_of_host(self) -> int:
        """Recorded samples of the warm host."""
        return self.table_samples_of_host


def simulate_search(
    strategy: Strategy,
    task: SearchTask,
    lookup: Lookup,
    *,
    workers: int = 1,
    seconds_before: float = 0.0,
) -> History:
    """Run one search on a table.

    Args:
        strategy: Strategy to run.
        task: Task with a `TableJob`.
        lookup: Returns what a trial sees; called for an epoch only once the trial has paid for it.
        workers: Number of trials at a time.
        seconds_before: Device-seconds of the warm host.

    Raises:
        UserError: The budget is too small.
    """
    strategy.check(task)
    plan = strategy.plan(task)
    if plan.searcher is None:
        raise ValueError(f"{strategy.name} is not a search of trials")
    before = task.job.samples_of_host
    budget = Budget(
        task.budget - before, plan.samples_per_epoch, plan.first_epochs, plan.max_trials
    )
    history = History(task.metric, task.mode, before, seconds_before)
    logic = SearchLogic(plan, task.metric, task.mode, budget)
    # Ends of epochs, by the clock and then in the order in which the epochs began.
    ends: list[tuple[float, int, LiveTrial, TableEntry]] = []
    order = count()

    def train(trial: LiveTrial, clock: float) -> None:
        entry = lookup(task.job.space.from_config(trial.config), trial.epoch + 1)
        seconds = entry.seconds - trial.last_result.get("train_seconds", 0.0)
        heapq.heappush(ends, (clock + seconds, next(order), trial, entry))

    clock = 0.0
    while True:
        for trial in logic.fill(workers):
            train(trial, clock)
        if not ends:
            return history
        clock, _, trial, entry = heapq.heappop(ends)
        genotype = task.job.space.from_config(trial.config)
        result = _result(genotype, trial.epoch + 1, entry, task.job.protocol.epochs)
        history.add(trial.trial_id, result)
        if not logic.result(trial.trial_id, result):
            train(trial, clock)


def _result(genotype: Genotype, epoch: int, entry: TableEntry, epochs: int) -> dict[str, Any]:
    scores = {"val_loss": entry.val_loss, "val_accuracy": entry.val_accuracy}
    return {
        **(CLASSIFICATION.lost("val") if entry.diverged else scores),
        "genotype": str(genotype),
        "epoch": epoch,
        TRAINING_ITERATION: epoch,
        "samples": entry.samples,
        "train_seconds": entry.seconds,
        "diverged": entry.diverged,
        "reason": "diverged in the table" if entry.diverged else "",
        "finished": epoch >= epochs,
        DONE: entry.diverged or epoch >= epochs,
    }


def table_task(table: TabularBenchmark, *, seed: int, budget: int, metric: str) -> SearchTask:
    """Return the task of a search on a table."""
    from trainables.training.protocol import ProxyProtocol

    protocol = ProxyProtocol.model_validate(table.about["config"]["proxy"])
    job = TableJob(
        network=None,  # type: ignore[arg-type]  # nothing is built
        space=table.space,
        data=None,  # type: ignore[arg-type]  # nothing is trained
        protocol=protocol,
        seed=seed,
        table_samples_per_epoch=table.samples_per_epoch,
        table_samples_of_host=table.samples_of_host,
    )
    return SearchTask(job, budget, metric)
