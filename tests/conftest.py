"""Shared parts: a small search on real digits, user-made spaces, a local Ray cluster."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
import yaml

# A token is for clusters that others can reach; this one is our own.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
# Ray starts its workers with niceness 15: beside a test that computes, they would hardly run.
os.environ.setdefault("RAY_worker_niceness", "0")
# Ray's own limits, which a machine with much else to do misses: a process that starts, an answer
# to "are you alive", and memory, of which Ray kills workers when other programs take it.
os.environ |= {
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "600",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_memory_monitor_refresh_ms": "0",
}

from sase_ray.figures import style
from sase_ray.strategies.registry import STRATEGIES
from search_spaces.backbones.registry import BACKBONES
from search_spaces.genotype import EDGE_KINDS, EDGES
from search_spaces.network import NetworkSpec
from search_spaces.ops import registry
from search_spaces.space import SearchSpace
from trainables.data import ImageData, load_dataset, make_splits, search_data
from trainables.data.registry import DATASETS
from trainables.scores.registry import SCORES
from trainables.search_job import SearchJob
from trainables.tasks.registry import TASKS
from trainables.training.protocol import ProxyProtocol

# A shell's background jobs ignore Ctrl-C, and hand that on; processes that tests start must not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no fault of an example.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

collect_ignore = ["new_files"]  # `test_one_file` adds them to a copy of the packages

pytest_plugins = ["tests.graph_stand_in", "tests.sase_ray.made_up_run"]

TINY_NETWORK = NetworkSpec("resnet8", 10, 1, (8, 8), {"width": 4})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of most tests on clusters: no worker ends on a long one alone."""
    clusters = Counter(item.path for item in items if item.get_closest_marker("ray"))
    items.sort(key=lambda item: -clusters[item.path])


@pytest.fixture(autouse=True)
def _own_catalogue() -> None:
    """Show every test the bundled entries only: forget what the tests before it registered."""
    for catalogue in (
        *registry.OPERATIONS.values(),
        BACKBONES,
        DATASETS,
        TASKS,
        SCORES,
        STRATEGIES,
    ):
        for name, entered in [*catalogue._entered.items()]:
            if not entered.module.startswith(catalogue.package):
                del catalogue._entered[name]
    registry._run_operation_file.cache_clear()


@pytest.fixture(autouse=True)
def _failed_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a figure that cannot be drawn fail its test; a user only reads of it."""

    def fail(what: str, error: Exception) -> None:
        raise error

    monkeypatch.setattr(style, "report_failure", fail)


@pytest.fixture(scope="session")
def digits() -> ImageData:
    return load_dataset("digits")


@pytest.fixture(scope="session")
def make_job(digits: ImageData) -> Callable[..., SearchJob]:
    """A search on 96 + 60 digits: ``make_job(space, seed=0, train=96, epochs=2, **protocol)``."""

    def make(
        space: str | Path | SearchSpace = "sase_tiny",
        *,
        seed: int = 0,
        train: int = 96,
        validation: int = 60,
        epochs: int = 2,
        batch_size: int = 16,
        **protocol: Any,
    ) -> SearchJob:
        splits = make_splits(digits, seed=0, train_size=train, validation_size=validation)
        return SearchJob(
            network=TINY_NETWORK,
            space=SearchSpace.load(space),
            data=search_data(digits, splits),
            protocol=ProxyProtocol(epochs=epochs, batch_size=batch_size, **protocol),
            seed=seed,
        )

    return make


@pytest.fixture
def write_space(tmp_path: Path) -> Callable[..., Path]:
    """A space file with one set an edge: ``write_space({"refine_excite": [...]}, operations)``."""
    plain = {
        "channel_squeeze": "gap",
        "channel_excite": "affine",
        "spatial_squeeze": "gap",
        "spatial_excite": "affine",
    }

    def write(choices: Mapping[str, Sequence[str]], operations: str = "", **extra: Any) -> Path:
        sets = {edge: list(choices.get(edge, [plain[EDGE_KINDS[edge]]])) for edge in EDGES}
        content = {"name": "own", "sets": sets, "edges": {edge: edge for edge in EDGES}, **extra}
        if operations:
            (tmp_path / "operations.py").write_text(operations)
            content["operations"] = ["operations.py"]
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray cluster of two CPUs and a pretended GPU, started once."""
    import ray

    quiet = {
        "RAY_AIR_NEW_OUTPUT": "0",
        "OMP_NUM_THREADS": "1",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }
    os.environ.update(quiet)
    started_here = not ray.is_initialized()
    tries = 3  # Ray waits no longer than 30 s for a cluster to start
    while started_here and not ray.is_initialized():
        try:
            ray.init(
                address="local",  # whatever else runs on this machine
                num_cpus=2,
                num_gpus=1,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": quiet},
            )
        except Exception as error:  # Ray has none of its own for this
            tries -= 1
            if not tries or "timed out during startup" not in str(error):
                raise
            ray.shutdown()
    yield
    if started_here:
        ray.shutdown()


@pytest.fixture(scope="session")
def assert_same() -> Callable[[Any, Any], None]:
    """Nested containers are equal, their tensors bit for bit."""

    def check(first: Any, second: Any, where: str = "") -> None:
        if isinstance(first, torch.Tensor):
            assert torch.equal(first, second), where
        elif isinstance(first, Mapping):
            assert list(first) == list(second), where
            for key in first:
                check(first[key], second[key], f"{where}/{key}")
        elif isinstance(first, (list, tuple)):
            assert len(first) == len(second), where
            for i, (one, other) in enumerate(zip(first, second, strict=True)):
                check(one, other, f"{where}/{i}")
        else:
            assert first == second, where

    return check


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], Any]]]:
    """A disk of 64 KiB; yields its folder and a function that makes it read-only."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing may be mounted here")
    try:
        yield (
            folder,
            lambda: subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True),
        )
    finally:
        subprocess.run(["umount", str(folder)], check=True)
