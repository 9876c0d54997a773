"""Overhead of a trial beyond its training: ours against a plain function trainable of Ray Tune."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray
from harness import Row
from ray import tune

from sase_ray.execution.one_search import run_search
from sase_ray.strategies import SearchTask
from sase_ray.strategies.catalogue import make_strategy
from search_spaces.network import NetworkSpec
from search_spaces.space import SearchSpace
from trainables.data import load_dataset, make_splits, search_data
from trainables.proxy.trainable import ProxyTrainable
from trainables.search_job import SearchJob
from trainables.training.protocol import ProxyProtocol

IMAGES, WORKERS = 32, 2


def make_job() -> SearchJob:
    data = load_dataset("digits")
    splits = make_splits(data, seed=0, train_size=IMAGES, validation_size=IMAGES)
    return SearchJob(
        network=NetworkSpec("resnet8", 10, 1, (8, 8), {"width": 4}),
        space=SearchSpace.load("sase"),
        data=search_data(data, splits),
        protocol=ProxyProtocol(epochs=1, batch_size=IMAGES),
        seed=0,
    )


def ours(job: SearchJob, trials: int) -> float:
    with tempfile.TemporaryDirectory() as storage:
        started = time.perf_counter()
        outcome = run_search(
            make_strategy("random"),
            SearchTask(job, trials * job.samples_per_trial),
            storage=storage,
            concurrency=WORKERS,
        )
        seconds = time.perf_counter() - started
    assert len(outcome.history.trials()) == trials
    return seconds


def stock(job: SearchJob, trials: int) -> float:
    """Run the same training as a function, for which Ray Tune starts a process."""

    def train(config: dict[str, Any], job: SearchJob) -> None:
        trainable = tune.with_parameters(ProxyTrainable, job=job)(config)
        tune.report({"val_loss": trainable.step()["val_loss"]})

    space = {v.name: tune.choice(list(v.choices)) for v in job.space.variables}
    with tempfile.TemporaryDirectory() as storage:
        started = time.perf_counter()
        results = tune.Tuner(
            tune.with_parameters(train, job=job),
            param_space=space,
            tune_config=tune.TuneConfig(
                num_samples=trials, max_concurrent_trials=WORKERS, metric="val_loss", mode="min"
            ),
            run_config=tune.RunConfig(storage_path=storage, verbose=0),
        ).fit()
        seconds = time.perf_counter() - started
    assert len(results) == trials
    assert results.num_errors == 0
    return seconds


def one_step(job: SearchJob) -> float:
    """Return the seconds that the training of a trial takes in this process."""
    trainable = tune.with_parameters(ProxyTrainable, job=job)(job.space.to_config(job.space[0]))
    started = time.perf_counter()
    for index in range(1, 11):
        trainable.reset_config(job.space.to_config(job.space[1000 * index]))
        trainable.step()
    return (time.perf_counter() - started) / 10


def start_ray() -> None:
    """Start a local cluster with as many CPUs as there are workers."""
    ray.init(
        address="local",
        num_cpus=WORKERS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )


def rows() -> list[Row]:
    start_ray()
    try:
        job = make_job()
        ours(job, 4)  # the first search starts worker processes
        few, many = ours(job, 20), ours(job, 120)
        # Each of the two workers runs half of the trials.
        own = (many - few) / 100
        function = (stock(job, 14) - stock(job, 4)) / 10
        work = one_step(job) / WORKERS
    finally:
        ray.shutdown()
    detail = (
        f"a trial on {WORKERS} workers: ours {own:.3f} s, function {function:.2f} s, of which "
        f"training {work:.3f} s"
    )
    return [
        Row(
            f"trials of one step on {WORKERS} workers, overhead",
            "function trainable",
            (function - work) / max(own - work, 1e-3),
            10,
            "at least",
            detail,
        ),
        Row("the same, a further trial", "-", own, 0.1, "at most", detail, unit="s"),
    ]
