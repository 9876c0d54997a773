"""Parts of the tests of whole comparisons: a tiny configuration, the command line, a cluster."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sase_ray.tabular_benchmark.benchmark import TabularBenchmark
from search_spaces.space import SearchSpace, describe_space
from tests.patience import PATIENCE, wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def tiny_settings() -> Mapping[str, Any]:
    """A comparison of seconds."""
    return {
        "dataset": "digits",
        "space": "sase_tiny",
        "backbone": {"name": "resnet8", "options": {"width": 4}},
        "data": {"train_size": 96, "validation_size": 60},
        "proxy": {"epochs": 2, "batch_size": 32, "averaging": 0, "seeds": 1, "warm_host": None},
        "final": {"train_size": 200, "epochs": 1, "gradcam_images": 0},
        "budget": 600,
        "seeds": 2,
        "baselines": ["none", "se"],
    }


@pytest.fixture
def tiny(tiny_settings, tmp_path) -> dict[str, Any]:
    """The same, written under `tmp_path`."""
    return {**tiny_settings, "results": str(tmp_path / "results")}


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m sase_ray` with the given arguments as the process that a user starts."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    environment.pop("RAY_ADDRESS", None)

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sase_ray", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            timeout=PATIENCE,
            **options,
        )

    return run


def _comes_up(process: subprocess.Popen[bytes], *ports: int) -> bool:
    """Wait until a process listens on all ports (True) or ends (False)."""

    def listens(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(lambda: process.poll() is not None or all(map(listens, ports)))
    return process.poll() is None


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, dict[str, str]]]:
    """A head with token authentication: the address for jobs, and the client's environment."""
    installed = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{installed}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("RAY_ADDRESS", None)
    environment.pop("RAY_API_SERVER_ADDRESS", None)
    gcs, dashboard, agent, agent_grpc, metrics, client = _free_ports(6)
    # Ray's sockets need a short path.
    folder = Path("/tmp") / f"sase-head-{secrets.token_hex(3)}"

    def start() -> subprocess.Popen[bytes]:
        arguments = [
            *[str(installed / "ray"), "start", "--head", "--block"],
            *[f"--port={gcs}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"],
            *[f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"],
            *[f"--dashboard-agent-grpc-port={agent_grpc}", f"--metrics-export-port={metrics}"],
            *["--num-cpus=2", f"--temp-dir={folder}", "--disable-usage-stats"],
        ]
        quiet: Mapping[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(arguments, env=environment, **quiet)

    started = start()
    try:
        for tries_left in (2, 1, 0):  # Ray waits no longer than 30 s for a head to start
            if _comes_up(started, dashboard, agent):  # the agent runs the jobs
                break
            assert tries_left, f"the head ended with code {started.returncode}"
            started = start()
        yield f"http://127.0.0.1:{dashboard}", environment
    finally:
        started.terminate()
        try:
            started.wait(40)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def make_table() -> Callable[..., TabularBenchmark]:
    """Make a table of `sase_tiny` with known variance components: see `_make_table`."""
    return _make_table


@pytest.fixture(scope="session")
def made_up_table() -> TabularBenchmark:
    """The same with its defaults."""
    return _make_table()


def _make_table(
    *,
    sd_genotype: float = 0.02,
    sd_seed: float = 0.01,
    sd_noise: float = 0.01,
    repeated: int = 300,
    seeds: int = 4,
    epochs: int = 3,
    diverged: Sequence[str] = (),
    shared: float = 1.0,
) -> TabularBenchmark:
    """Losses 0.5 + genotype + seed + noise, by epoch from 0.2 above.

    The test loss is 0.55 + genotype + `shared` of the same noise + a little of its own.
    """
    rng = np.random.default_rng(0)
    space = SearchSpace.load("sase_tiny")
    texts = [str(g) for g in space]
    true = dict(zip(texts, rng.normal(0, sd_genotype, len(texts)), strict=True))
    shift = rng.normal(0, sd_seed, seeds)
    rows = []
    for seed in range(seeds):
        for text in texts if seed == 0 else texts[:repeated]:
            noise = rng.normal(0, sd_noise)
            test = 0.55 + true[text] + shared * noise + rng.normal(0, 0.002)
            for epoch in range(1, epochs + 1):
                lost = text in diverged and epoch == 2
                loss = 0.5 + true[text] + shift[seed] + noise + 0.2 * (epochs - epoch)
                rows.append(
                    {
                        "genotype": text,
                        "seed": seed,
                        "epoch": epoch,
                        "val_loss": np.inf if lost else loss,
                        "val_accuracy": 0.0 if lost else 1 - loss,
                        "train_seconds": 2.0 * epoch,
                        "diverged": lost,
                        "test_loss": np.inf if lost else test if epoch == epochs else np.nan,
                        "test_accuracy": 0.0 if lost else 1 - test if epoch == epochs else np.nan,
                    }
                )
                if lost:
                    break
    about = {
        "config": {"proxy": {"epochs": epochs}, "dataset": "made up"},
        "space": describe_space(space),
        "samples_per_epoch": 100,
        "samples_of_host": 50,
        "hosts": {"0": {"samples": 50, "seconds": 1.0}},
    }
    table = TabularBenchmark(pd.DataFrame(rows), about)
    table.made_of = true  # type: ignore[attr-defined]  # for tests to compare with
    return table
