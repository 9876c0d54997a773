"""One search by Ray Tune, and its outcome."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray import tune

from sase_ray.cluster.slots import TrialResources
from sase_ray.execution.budget import Budget, BudgetedSearcher, BudgetStopper, Once
from sase_ray.execution.observer import Observer
from sase_ray.execution.recorder import Recorder
from sase_ray.execution.replay_order import Turn, keeper_of
from sase_ray.results.history import History, Row, SearchOutcome
from sase_ray.results.search_id import SearchId
from sase_ray.strategies import SearchTask, Strategy
from trainables.metrics import describe, find_metric
from trainables.persistence.resumable import SHARE, Memory, ResumableTrainable
from trainables.persistence.store import Store
from trainables.proxy.warm_host import train_host

MAX_FAILURES = 2
"""Number of times that a trial whose process died is resumed from its last checkpoint."""


def train_host_on(resources: TrialResources) -> Any:
    """Return `train_host` as a Ray task that holds the resources of one trial."""
    return ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=2)(train_host)


def run_search(
    strategy: Strategy,
    task: SearchTask,
    *,
    storage: str | Path,
    resources: TrialResources | None = None,
    concurrency: int = 1,
    observers: Sequence[Observer] = (),
    memory: Memory | None = None,
    order: Sequence[Turn] = (),
) -> SearchOutcome:
    """Run one search on the Ray cluster that this process is connected to.

    Args:
        strategy: Strategy to run.
        task: Task with space, data, budget and seed. A warm host that the proxy protocol asks for
            is trained first, if the task does not hold it.
        storage: Folder or URI for Tune's own files; a subfolder is made, and removed at the end.
        resources: Resources of one trial.
        concurrency: Number of trials at a time.
        observers: Observers notified of trials and evaluations, in this process.
        memory: Store of the trials' checkpoints, with their past results; without one, the
            checkpoints are in `storage` for as long as the search runs.
        order: Order in which the past results were reported.

    Raises:
        UserError: The budget is too small, or no trial gave a result.
        StorageError: A trial could not write its checkpoint.
    """
    resources = resources or TrialResources()
    strategy.check(task)
    if task.job.host is None and strategy.wants_host(task):
        task = task.with_host(ray.get(train_host_on(resources).remote(task.job)))
    plan = strategy.plan(task)
    budget = Budget(
        task.budget - plan.samples_before,
        plan.samples_per_epoch,
        plan.first_epochs,
        plan.max_trials,
    )
    metric = strategy.metric(task)
    mode = find_metric(metric).direction
    history = History(metric, mode, plan.samples_before, plan.seconds_before)
    search = strategy.search_id(task.job.seed)
    name = search.file_name
    # Tune's own per-trial loggers cost more than a small trial, and our tables hold the same.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    # So do its snapshots of all trials, which grow with the search; our journal replaces them.
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1e9"
    memory = memory or Memory(Store(storage).at(f"{name}-checkpoints"))
    if order and concurrency > 1:
        keeper = keeper_of(order)
        memory = replace(memory, turns=keeper)
        observers = (*observers, _Turns(keeper))
    parameters = dict(plan.parameters)
    if issubclass(plan.trainable, ResumableTrainable):
        parameters["memory"] = memory
    trainable = tune.with_resources(
        tune.with_parameters(plan.trainable, **parameters),
        lambda config: resources.reserved(config.get(SHARE, 1)),
    )
    # Tune keeps trainables by name in a registry that all searches of a Ray job share: without a
    # name of its own, a search would run the trials of whichever other search began last.
    trainable._name = f"{name}-{uuid4().hex}"
    tuner = tune.Tuner(
        trainable,
        param_space=dict(plan.param_space),
        tune_config=tune.TuneConfig(
            metric=metric,
            mode=mode,
            search_alg=BudgetedSearcher(plan.searcher or Once(), budget),
            scheduler=plan.scheduler,
            num_samples=-1,
            max_concurrent_trials=concurrency,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=Store(storage).place,
            stop=BudgetStopper(budget),
            callbacks=[Recorder(history, task.job.space, search, observers)],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        Store(storage).remove(name)
        Store(storage).remove(f"{name}-checkpoints")
    return SearchOutcome(
        strategy=strategy.label,
        seed=task.job.seed,
        ranking=strategy.conclude(history, task),
        score=describe(strategy.ranks_by(task)),
        history=history,
        samples=history.samples,
        seconds=history.seconds,
    )


class _Turns(Observer):
    """Observer that reports to the keeper of the order what has reached the search."""

    def __init__(self, keeper: Any) -> None:
        self.keeper = keeper

    def evaluated(self, search: SearchId, row: Row) -> None:
        self.keeper.hear.remote((row["trial"], row["epoch"]))
