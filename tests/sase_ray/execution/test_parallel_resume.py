"""A search with two trials at a time is killed and resumed, and ends as if undisturbed.

Which of two trials reports next is up to the machine, so no second run has the same tables. The
undisturbed search is therefore made up here, of parts that know neither Ray nor a journal: each
genotype is trained alone, and the search's logic gets the epochs in the order of the tables.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sase_ray.config import load_config
from sase_ray.execution.budget import Budget
from sase_ray.execution.experiment import Experiment
from sase_ray.execution.search_logic import SearchLogic
from sase_ray.results.history import History, SearchOutcome
from sase_ray.results.rows import curve_rows, search_rows, trial_rows
from tests.patience import PATIENCE, wait_until
from trainables.proxy.trainable import ProxyTrainable

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NAME = "tpe-asha"
WORKERS = 2
CLOCKS = ["train_seconds", "search_seconds", "seconds", "peak_memory_mib"]
SLEEPY = """
import os, random, time
from pathlib import Path
from torch import nn
from search_spaces.ops import register_op

@register_op("channel_excite", "sleepy")
class Sleepy(nn.Module):
    '''A gate that may take its time, and leaves a byte each time that it is trained.'''
    def __init__(self, channels, size, *, affine=True, device=None, dtype=None):
        super().__init__()
    def forward(self, z):
        time.sleep(random.SystemRandom().random() * float(os.environ.get("SLEEPY_SECONDS", 0)))
        if self.training:
            with Path({passes!r}).open("ab") as file:
                file.write(b".")
        return z.sigmoid()
"""


@pytest.fixture
def passes(tmp_path):
    return tmp_path / "passes"


@pytest.fixture
def config(tiny_settings, tmp_path, write_space, passes):
    space = write_space(
        {
            "refine_excite": ["sleepy"],
            "channel_squeeze": ["gap", "gap_std", "l2norm", "pnorm"],
            "spatial_squeeze": ["gap", "gap_std", "l2norm"],
            "spatial_excite": ["affine", "conv3x3"],
        },
        SLEEPY.format(passes=str(passes)),
    )
    values = {
        **tiny_settings,
        "space": str(space),
        "proxy": {**tiny_settings["proxy"], "epochs": 3},
        "strategies": [NAME],
        "strategy_options": {NAME: {"startup_trials": 3}},
        "budget": 3000,
        "seeds": 1,
        "baselines": [],
        "resources": {"trials_at_once": WORKERS},
        "results": str(tmp_path / "results"),
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def start(tmp_path):
    """Start the command line in a process group of its own."""
    started = []

    def run(*arguments, **environment):
        log = (tmp_path / f"out{len(started)}.log").open("w")
        own = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80", **environment}
        own.pop("RAY_ADDRESS", None)
        process = subprocess.Popen(
            [sys.executable, "-m", "sase_ray", *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=own,
            start_new_session=True,
        )
        process.said = lambda: Path(log.name).read_text()
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def journalled(run):
    """Return the events that are in the journal of a run under way."""
    files = sorted((run / "state" / "journal" / f"{NAME}-seed0").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def undisturbed(config, turns):
    """Return the outcome of the search whose epochs arrive in a given order."""
    experiment = Experiment.of(load_config(config))
    task, strategy = experiment.task(0), experiment.strategies[NAME]
    plan = strategy.plan(task)
    budget = Budget(task.budget, plan.samples_per_epoch, plan.first_epochs, plan.max_trials)
    logic = SearchLogic(plan, task.metric, task.mode, budget)
    history = History(task.metric, task.mode)
    trained = {}

    class Alone(ProxyTrainable):
        def setup(self, config):
            super().setup(config, job=task.job)

    for trial, epoch in turns:
        for begun in logic.fill(WORKERS):
            trained[begun.trial_id] = Alone(config=dict(begun.config))
        assert trial in logic.live, f"trial {trial} had ended or not begun at its epoch {epoch}"
        result = trained[trial].train()
        assert result["epoch"] == epoch
        history.add(trial, result)
        logic.result(trial, result)
    assert not [*logic.fill(WORKERS), *logic.live], "the search was not over"
    ranking = strategy.conclude(history, task)
    return SearchOutcome(NAME, 0, ranking, "", history, history.samples, history.seconds)


def compared(rows):
    frame = pd.DataFrame(list(rows))
    return frame.drop(columns=[name for name in CLOCKS if name in frame])


@pytest.mark.full
@pytest.mark.parametrize("kills", [1, 3])
def test_a_killed_search_of_two_trials_at_a_time_has_the_undisturbed_tables(
    kills, config, start, passes, tmp_path
):
    run = tmp_path / "results" / "run"
    process = start("search", NAME, "--config", str(config), "--run", "run", SLEEPY_SECONDS="0.5")
    known: list = []
    for kill in range(kills):

        def more_is_known(known=known, process=process):
            assert process.poll() is None, process.said()
            return len(journalled(run)) >= len(known) + 6

        wait_until(more_is_known)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not list((run / "state" / "outcomes").glob("*")), "it was killed too late"
        before, known = known, journalled(run)
        assert known[: len(before)] == before
        slow = {} if kill == kills - 1 else {"SLEEPY_SECONDS": "0.5"}
        process = start("resume", str(run), **slow)
    assert process.wait(PATIENCE) == 0, process.said()
    assert "leaves its earlier course" not in " ".join(process.said().split())

    tables = {name: pd.read_parquet(run / f"{name}.parquet") for name in ("trials", "curves")}
    tables["searches"] = pd.read_parquet(run / "searches.parquet")
    curves = tables["curves"]
    turns = list(zip(curves["trial"], curves["epoch"], strict=True))
    assert turns[: len(known)] == [(e["trial"], e["result"]["epoch"]) for e in known]
    clocks = [event["result"]["train_seconds"] for event in known]
    assert list(curves["train_seconds"][: len(known)]) == clocks, "nothing is trained again"
    assert [trial for trial, _ in turns] != sorted(trial for trial, _ in turns), "side by side"
    spent = passes.stat().st_size
    outcome = undisturbed(config, turns)
    expected = {
        "searches": search_rows([outcome]),
        "trials": trial_rows([outcome], {NAME: "black-box"}),
        "curves": curve_rows([outcome]),
    }
    for name, rows in expected.items():
        found = compared(tables[name].to_dict("records"))
        pd.testing.assert_frame_equal(found, compared(rows), obj=name, check_exact=True)
    assert {"finished", "stopped"} <= set(tables["trials"]["status"])
    # Only the epochs that were cut off are trained again.
    needed = passes.stat().st_size - spent
    epoch = needed / len(turns)
    assert needed <= spent <= needed + WORKERS * kills * epoch
