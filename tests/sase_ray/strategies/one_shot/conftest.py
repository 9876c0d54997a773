"""Parts of the tests of one-shot strategies: algorithms and searches, driven without Ray."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from sase_ray.strategies import SearchTask
from sase_ray.strategies.catalogue import make_strategy
from trainables.one_shot.latency_table import LatencyTable, cache_path
from trainables.one_shot.trainable import SupernetTrainable
from trainables.training.loop import Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def measured():
    """Latency tables that were measured before, by network and space."""
    return {}


@pytest.fixture(autouse=True)
def latency_of(monkeypatch, tmp_path, measured):
    """Keep the cache of latency tables in the test; return one that puts a table there."""
    monkeypatch.setenv("SASE_CACHE", str(tmp_path / "cache"))

    def get(job):
        path = cache_path(job.network, job.space, CPU)
        if path.name not in measured:
            measured[path.name] = LatencyTable.measure(
                job.network, job.space, CPU, min_seconds=1e-4
            )
        measured[path.name].save(path)
        return measured[path.name]

    return get


@pytest.fixture
def start_search(latency_of):
    """Build the trainable as a Tune worker does: the algorithm comes as a copy."""

    def start(job, name, budget, **options):
        if name in ("fbnet", "prunet") and options.get("latency_power", 1):
            latency_of(job)
        algorithm = make_strategy(name, options).algorithm(SearchTask(job, budget))

        class Bound(SupernetTrainable):
            def setup(self, config):
                super().setup(config, job=job, algorithm=deepcopy(algorithm), budget=budget)
                self.go_on()

        return Bound(config={})

    return start


@pytest.fixture
def run_search(start_search):
    """Run a whole search; return its trainable and its results."""

    def run(job, name, budget, **options):
        trainable = start_search(job, name, budget, **options)
        results = []
        while not results or not results[-1]["done"]:
            results.append(trainable.train())
        return trainable, results

    return run


@pytest.fixture
def start_algorithm(make_job, latency_of):
    """A started algorithm on a float64 supernet, and batches of twelve digits."""

    def start(name, space="sase_tiny", seed=0, **options):
        job = make_job(space)
        if name in ("fbnet", "prunet"):
            latency_of(job)
        algorithm = make_strategy(name, options).algorithm(SearchTask(job, 10_000))
        supernet = algorithm.build_supernet(job.network, job.space, seed).double()
        trainer = Trainer(
            lambda images: supernet(images, algorithm.mixture()),
            algorithm.weight_parameters(supernet),
            algorithm.protocol,
            100,
            CPU,
        )
        algorithm.start(supernet, trainer, torch.Generator().manual_seed(seed))
        images = job.data.train.images.double() / 255 - 0.3
        labels = job.data.train.labels
        return algorithm, [(images[i : i + 12], labels[i : i + 12]) for i in (0, 12, 24, 36)]

    return start
