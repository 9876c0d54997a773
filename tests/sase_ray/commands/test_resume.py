"""Runs that are interrupted, each in its own way, end with the tables of an undisturbed run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sase_ray.results.folder import RunFolder
from search_spaces.errors import UserError
from tests.patience import PATIENCE, wait_until
from trainables.persistence.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TABLES = ("trials", "curves", "alpha", "rankings", "final", "searches", "strategies")
CLOCKS = {"train_seconds", "search_seconds", "seconds", "latency_ms", "peak_memory_mib"}


def settings(tiny):
    """A search of many trials and one of a single trial, side by side."""
    return {
        **tiny,
        "proxy": {**tiny["proxy"], "epochs": 3},
        "final": {**tiny["final"], "epochs": 3},
        "strategies": ["tpe-asha", "darts"],
        "strategy_options": {"darts": {"batch_size": 16}, "tpe-asha": {"startup_trials": 3}},
        "budget": 3000,
        "seeds": 1,
        "baselines": [],
        "resources": {"trials_at_once": 1},
    }


class Runs:
    """Starts comparisons as a user does, in a folder of their own."""

    def __init__(self, folder: Path, values: dict, working_folder: Path | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.working_folder = working_folder
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump({**values, "results": str(folder / "results")}))
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
        self.environment.pop("RAY_ADDRESS", None)
        self.started: list[subprocess.Popen] = []

    @property
    def run(self) -> Path:
        return self.folder / "results" / "run"

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        output = (self.folder / f"out{len(self.started)}.log").open("w+")
        process = subprocess.Popen(
            [sys.executable, "-m", "sase_ray", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**self.environment, **environment},
            cwd=self.working_folder,
        )
        process.output = output  # type: ignore[attr-defined]
        self.started.append(process)
        return process

    def compare(self, *arguments: str, **environment: str) -> subprocess.Popen:
        return self.start(
            "compare", "--config", str(self.config), "--run", "run", *arguments, **environment
        )

    def said(self, process: subprocess.Popen) -> str:
        return Path(process.output.name).read_text()  # type: ignore[attr-defined]

    def wait_until(self, process: subprocess.Popen, condition: Callable[[], bool]) -> None:
        def check() -> None:
            assert process.poll() is None, self.said(process)

        wait_until(condition, check)

    def end(self, process: subprocess.Popen, code: int = 0) -> str:
        assert process.wait(PATIENCE) == code, self.said(process)
        return self.said(process)

    def resume(self, *arguments: str, run: str | Path | None = None) -> str:
        return self.end(self.start("resume", str(run or self.run), *arguments))

    def files(self, pattern: str) -> list[Path]:
        return sorted((self.run / "state").glob(pattern))

    def is_at_work(self) -> bool:
        """Whether the long search is in the middle of its trial, and the short one has begun."""
        return len(self.files("trials/darts-seed0/00000/*")) >= 2 and bool(
            self.files("trials/tpe-asha-seed0/*/*") or self.files("outcomes/*.json")
        )

    def tables(self, folder: Path | None = None) -> dict[str, pd.DataFrame]:
        found = {name: pd.read_parquet((folder or self.run) / f"{name}.parquet") for name in TABLES}
        return {
            name: table.drop(columns=[column for column in table if column in CLOCKS])
            for name, table in found.items()
        }


@pytest.fixture(scope="module")
def undisturbed(tiny_settings, tmp_path_factory):
    runs = Runs(tmp_path_factory.mktemp("undisturbed"), settings(tiny_settings))
    runs.end(runs.compare())
    assert not (runs.run / "state").exists(), "nothing but results is left"
    assert not list(runs.run.glob(".*"))
    return runs.tables()


@pytest.fixture
def runs(tiny_settings, tmp_path):
    made = Runs(tmp_path, settings(tiny_settings))
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process.wait()


def assert_equal(tables, others):
    for name in TABLES:
        pd.testing.assert_frame_equal(tables[name], others[name], obj=name)
    trials = tables["trials"]
    assert not trials.duplicated(["strategy", "seed", "trial"]).any()
    assert (trials.groupby("strategy")["trial"].max().astype(int) + 1).equals(
        trials.groupby("strategy")["trial"].count()
    ), "no number is missing"


@pytest.mark.full
def test_a_driver_killed_twice_and_in_its_final_trainings(runs, undisturbed):
    driver = runs.compare()
    runs.wait_until(driver, runs.is_at_work)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    ended = len(runs.files("outcomes/*.json"))
    again = runs.start("resume", str(runs.run))
    runs.wait_until(again, lambda: len(runs.files("outcomes/*.json")) > ended)
    again.send_signal(signal.SIGTERM)  # as a cluster stops a job
    said = runs.end(again, 130)
    assert "Traceback" not in said
    assert f"to continue: sase-ray resume {runs.run}" in said
    third = runs.start("resume", str(runs.run))
    runs.wait_until(third, lambda: bool(runs.files("finals/*/*.pt")))
    os.kill(third.pid, signal.SIGKILL)
    third.wait()
    # What another process does not leave behind whole is not there.
    (runs.run / "trials.parquet").unlink(missing_ok=True)
    (runs.run / ".trials.parquet.partial").write_bytes(b"PAR1 half")
    said = runs.resume()
    assert_equal(runs.tables(), undisturbed)
    assert "test accuracy in %" in said
    assert not (runs.run / "state").exists()
    late = runs.start("resume", str(runs.run))
    assert "has ended: there is nothing to resume" in runs.end(late, 2)


def test_an_interrupt_a_damaged_checkpoint_and_a_storage(runs, undisturbed, tmp_path):
    storage = (tmp_path / "bucket").as_uri()
    place = f"{storage}/run"
    driver = runs.compare("--storage", storage)
    kept = Store(place).at("state", "trials", "darts-seed0", "00000")
    runs.wait_until(driver, lambda: len(kept.names()) >= 2)
    with pytest.raises(UserError, match="is under way in another process"):
        RunFolder(runs.run, storage).lock()
    driver.send_signal(signal.SIGINT)
    said = runs.end(driver, 130)
    assert "Traceback" not in said
    assert f"to continue: sase-ray resume {place}" in said
    newest = kept.names()[-1]
    kept.write(newest, (kept.read(newest) or b"")[:-100])
    shutil.rmtree(runs.run)  # the machine of the driver is gone
    said = runs.resume(run=place)
    assert f"checkpoint of epoch {int(newest[:6])}" in said
    assert "is damaged: the one before it is used" in said
    assert_equal(runs.tables(), undisturbed)
    assert_equal(runs.tables(tmp_path / "bucket" / "run"), undisturbed)
    assert Store(place).at("state").names() == []


NODES = """
import os, signal, sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
from sase_ray import compare

# The first node holds no trials.
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
lost = nodes.add_node(num_cpus=2)
folder = Path(sys.argv[1])
state = folder / "results" / "run" / "state"

def run():
    compare(folder / "config.yaml", run="run", resources={"address": nodes.address})

comparing = threading.Thread(target=run, daemon=True)
comparing.start()
try:
    while len(list(state.glob("trials/darts-seed0/00000/*"))) < 2 and comparing.is_alive():
        time.sleep(0.05)
    os.kill(lost.all_processes["raylet"][0].process.pid, signal.SIGKILL)
    nodes.add_node(num_cpus=2)  # which only the main thread may do
    print("a node for another", flush=True)
    comparing.join()
finally:
    nodes.shutdown()
"""


@pytest.mark.full
def test_a_node_that_dies_with_its_trials(runs, undisturbed):
    done = subprocess.run(
        [sys.executable, "-c", NODES, str(runs.folder)],
        env=runs.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "a node for another" in done.stdout
    assert_equal(runs.tables(), undisturbed)


HEAD = """
from ray.cluster_utils import Cluster
nodes = Cluster(
    initialize_head=True,
    head_node_args={"num_cpus": 2, "include_dashboard": False},
)
pids = [p.process.pid for kind in nodes.head_node.all_processes.values() for p in kind]
print(nodes.address, *pids, flush=True)
input()
"""


@pytest.mark.full
def test_the_head_of_the_cluster_goes_and_another_cluster_takes_over(runs, undisturbed):
    cluster = subprocess.Popen(
        [sys.executable, "-c", HEAD],
        env=runs.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert cluster.stdout is not None
        address, *pids = cluster.stdout.readline().split()
        driver = runs.compare("--address", address)
        runs.wait_until(driver, runs.is_at_work)
        for pid in map(int, pids):
            os.kill(pid, signal.SIGKILL)
        said = runs.end(driver, 1)
    finally:
        cluster.kill()
        cluster.wait()
    assert "the head of the Ray cluster" in said
    assert f"to continue: sase-ray resume {runs.run}" in said
    runs.resume("--address", "local")
    assert_equal(runs.tables(), undisturbed)
