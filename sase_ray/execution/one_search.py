"""One search by Ray Tune, and its outcome."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray import tune

from sase_ray.cluster.slots import TrialResources
from sase_ray.execution.budget import Budget
from sase_ray.execution.in_tune import LogicInTune
from sase_ray.execution.observer import Observer, notify
from sase_ray.execution.recorder import Recorder
from sase_ray.execution.replay import PastEvent, replay
from sase_ray.execution.search_logic import SearchLogic
from sase_ray.results.history import History, SearchOutcome
from sase_ray.strategies import Plan, SearchTask, Strategy
from trainables.metrics import describe, find_metric
from trainables.persistence.resumable import SHARE_FACTOR, Kept, ResumableTrainable
from trainables.persistence.store import Store
from trainables.planted.plant import make_plant
from trainables.proxy.warm_host import train_host

MAX_FAILURES = 2
"""Number of times that a trial whose process died is resumed from its last checkpoint."""


def train_host_on(resources: TrialResources) -> Any:
    """Return `train_host` as a Ray task that holds the resources of one trial."""
    return ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=2)(train_host)


def make_plant_on(resources: TrialResources) -> Any:
    """Return `make_plant` as a Ray task that holds the resources of one trial."""
    return ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=2)(make_plant)


def run_search(
    strategy: Strategy,
    task: SearchTask,
    *,
    storage: str | Path,
    resources: TrialResources | None = None,
    concurrency: int = 1,
    observers: Sequence[Observer] = (),
    kept: Kept | None = None,
    past: Sequence[PastEvent] = (),
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
        kept: Store of the trials' checkpoints, and their time limit; without it, the checkpoints
            are in `storage` for as long as the search runs.
        past: Events of the search before it was interrupted, in their order. The observers are
            notified of them again.

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
    logic = SearchLogic(plan, metric, mode, budget)
    history = History(metric, mode, plan.samples_before, plan.seconds_before)
    search = strategy.search_id(task.job.seed)
    recorder = Recorder(history, task.job.space, search, observers)
    fitting = replay(past, logic, recorder, concurrency)
    if fitting < len(past):
        notify(observers, "rewound", search, fitting)
        text = f"of its {len(past)} past results, {fitting} belong to what it tries now"
        notify(observers, "noted", f"search {search} leaves its earlier course: {text}")
    if logic.live:
        name = search.file_name
        kept = kept or Kept(Store(storage).at(f"{name}-checkpoints"))
        trainable = _trainable(plan, name, resources, kept)
        try:
            _tuner(trainable, logic, recorder, name, storage, concurrency).fit()
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


def _trainable(plan: Plan, name: str, resources: TrialResources, kept: Kept) -> Any:
    parameters = dict(plan.parameters)
    if issubclass(plan.trainable, ResumableTrainable):
        parameters["kept"] = kept
    trainable = tune.with_resources(
        tune.with_parameters(plan.trainable, **parameters),
        lambda config: resources.reserved(config.get(SHARE_FACTOR, 1)),
    )
    # Tune keeps trainables by name in a registry that all searches of a Ray job share: without a
    # name of its own, a search would run the trials of whichever other search began last.
    trainable._name = f"{name}-{uuid4().hex}"
    return trainable


def _tuner(
    trainable: Any,
    logic: SearchLogic,
    recorder: Recorder,
    name: str,
    storage: str | Path,
    concurrency: int,
) -> tune.Tuner:
    # Tune's own per-trial loggers cost more than a small trial, and our tables hold the same.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    # So do its snapshots of all trials, which grow with the search; our journal replaces them.
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1e9"
    in_tune = LogicInTune(logic)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric=logic.metric,
            mode=logic.mode,
            search_alg=in_tune,
            num_samples=-1,
            max_concurrent_trials=concurrency,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=Store(storage).place,
            stop=in_tune,
            callbacks=[recorder],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            # By default, a trial that ends is saved first, and while that takes its time, results
            # of others arrive, which the next trial would depend on.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
