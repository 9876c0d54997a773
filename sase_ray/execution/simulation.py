"""Searches on a table in place of training: the same searchers and schedulers, a simulated clock.

The simulation handles a result as Ray Tune does, in the same order (`TuneController`,
``_process_trial_result``), so that a strategy sees no difference; a test runs both.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ray.tune.result import DONE, TRAINING_ITERATION
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sase_ray.execution.budget import Budget, BudgetedSearcher, BudgetStopper
from sase_ray.results.history import History
from sase_ray.strategies import SearchTask, Strategy
from sase_ray.tabular_benchmark.benchmark import TableEntry, TabularBenchmark
from search_spaces.genotype import Genotype
from trainables.search_job import SearchJob
from trainables.tasks.classification import CLASSIFICATION

Look = Callable[[Genotype, int], TableEntry]
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


@dataclass
class _Trial:
    """The part of Tune's trials that schedulers use."""

    trial_id: str
    config: dict[str, Any]
    genotype: Genotype
    epoch: int = 0
    status: str = "RUNNING"
    last_result: dict[str, Any] = field(default_factory=dict)


def simulate_search(
    strategy: Strategy,
    task: SearchTask,
    look: Look,
    *,
    workers: int = 1,
    seconds_before: float = 0.0,
) -> History:
    """Run one search on a table.

    Args:
        strategy: Strategy to run.
        task: Task with a `TableJob`.
        look: Returns what a trial sees; called for an epoch only once the trial has paid for it.
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
    searcher = BudgetedSearcher(plan.searcher, budget)
    searcher.set_search_properties(task.metric, task.mode, dict(plan.param_space))
    scheduler = plan.scheduler or FIFOScheduler()
    scheduler.set_search_properties(task.metric, task.mode)
    stopper = BudgetStopper(budget)
    controller: Any = SimpleNamespace()  # FIFO and ASHA only look at the trial
    events: list[tuple[float, int, Any, TableEntry]] = []
    clock, begun = 0.0, 0
    order = 0

    def push(trial: _Trial) -> None:
        nonlocal order
        trial.epoch += 1
        entry = look(trial.genotype, trial.epoch)
        step = entry.seconds - trial.last_result.get("train_seconds", 0.0)
        heapq.heappush(events, (clock + step, order, trial, entry))
        order += 1

    while True:
        while len(events) < workers:
            trial_id = f"{begun:05d}"
            config = searcher.suggest(trial_id)
            if not isinstance(config, dict):  # nothing to begin now, or finished
                break
            begun += 1
            trial: Any = _Trial(trial_id, config, task.job.space.from_config(config))
            scheduler.on_trial_add(controller, trial)
            push(trial)
        if not events:
            return history
        clock, _, trial, entry = heapq.heappop(events)
        result = _result(trial, entry, task.job.protocol.epochs)
        done = stopper(trial.trial_id, result) or result[DONE]
        if not done:
            action = scheduler.on_trial_result(controller, trial, result)
            done = action == TrialScheduler.STOP
        if not done:
            searcher.on_trial_result(trial.trial_id, result)
        history.add(trial.trial_id, result)
        trial.last_result = result
        if done:
            scheduler.on_trial_complete(controller, trial, result)
            searcher.on_trial_complete(trial.trial_id, result)
        else:
            push(trial)


def _result(trial: _Trial, entry: TableEntry, epochs: int) -> dict[str, Any]:
    scores = {"val_loss": entry.val_loss, "val_accuracy": entry.val_accuracy}
    return {
        **(CLASSIFICATION.lost("val") if entry.diverged else scores),
        "genotype": str(trial.genotype),
        "epoch": trial.epoch,
        TRAINING_ITERATION: trial.epoch,
        "samples": entry.samples,
        "train_seconds": entry.seconds,
        "diverged": entry.diverged,
        "reason": "diverged in the table" if entry.diverged else "",
        "finished": trial.epoch >= epochs,
        DONE: entry.diverged or trial.epoch >= epochs,
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
