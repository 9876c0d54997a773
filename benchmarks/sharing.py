"""Trials per hour of k trials that share a GPU, and how busy one trial keeps it."""

from __future__ import annotations

import os
import tempfile
import time

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray
import torch
from harness import Row, prepare

from sase_ray.cluster.slots import TrialResources
from sase_ray.execution.one_search import run_search
from sase_ray.strategies import SearchTask
from sase_ray.strategies.catalogue import make_strategy
from search_spaces.network import NetworkSpec
from search_spaces.space import SearchSpace
from trainables.data.augment import Augmentation, Normalisation
from trainables.data.dataset import LabelledImages
from trainables.data.splits import SearchData
from trainables.proxy.trainable import ProxyTrainable
from trainables.search_job import SearchJob
from trainables.training.protocol import ProxyProtocol

SHARES = (1, 2, 4, 8)


def make_job(images: int, epochs: int, *, graphs: bool = False) -> SearchJob:
    def part(count: int) -> LabelledImages:
        pixels = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8)
        return LabelledImages(pixels, torch.randint(0, 10, (count,)))

    data = SearchData(
        name="made up",
        train=part(images),
        validation=part(1000),
        num_classes=10,
        normalisation=Normalisation((0.286,), (0.353,)),
        augmentation=Augmentation(padding=2, flip=True),
        splits={},
    )
    return SearchJob(
        NetworkSpec("resnet20", 10, 1, (28, 28)),
        SearchSpace.load("sase"),
        data,
        ProxyProtocol(epochs=epochs, batch_size=256, cuda_graphs=graphs),
        seed=0,
    )


def trials_an_hour(job: SearchJob, k: int, trials: int) -> float:
    """Measure trials per hour, k at a time with 1/k of a GPU each, on this process's cluster."""
    task = SearchTask(job, trials * job.samples_per_trial)
    resources = TrialResources(cpus=0.1, gpus=1 / k)
    with tempfile.TemporaryDirectory() as storage:
        strategy = make_strategy("random")
        started = time.perf_counter()
        outcome = run_search(strategy, task, storage=storage, resources=resources, concurrency=k)
        seconds = time.perf_counter() - started
    assert not outcome.history.failures, outcome.history.failures
    return 3600 * trials / seconds


def busy(job: SearchJob) -> float:
    """Return the fraction of a trial's epoch in which the GPU computes."""
    trial = ProxyTrainable.__new__(ProxyTrainable)
    trial.setup(job.space.to_config(job.space[0]), job=job)
    trial.step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        torch.cuda.synchronize()
        started = time.perf_counter()
        trial.step()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    kernels = sum(event.self_device_time_total for event in profile.key_averages())
    return kernels / 1e6 / seconds


def rows() -> list[Row]:
    if prepare().type != "cuda":
        return []
    jobs = {"": make_job(10_000, 2), ", as CUDA graphs": make_job(10_000, 2, graphs=True)}
    ray.init(address="local", num_gpus=1, include_dashboard=False, log_to_driver=False)
    found = []
    try:
        for how, job in jobs.items():
            # The first search starts worker processes.
            trials_an_hour(job, max(SHARES), max(SHARES))
            rates = {k: trials_an_hour(job, k, 16) for k in SHARES}
            detail = ", ".join(f"{k} at 1/{k}: {rate:,.0f} an hour" for k, rate in rates.items())
            found += [
                Row(
                    f"{k} trials at 1/{k} of a GPU{how}",
                    "one",
                    rate / rates[1],
                    None,
                    "at least",
                    detail,
                )
                for k, rate in rates.items()
                if k > 1
            ]
    finally:
        ray.shutdown()
    computing = "share of an epoch that the GPU computes"
    return [
        *found,
        *(Row(computing + how, "-", busy(job), None, "at least", "") for how, job in jobs.items()),
    ]
