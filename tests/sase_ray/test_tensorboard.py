"""TensorBoard's logs, read back by TensorBoard itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sase_ray.tensorboard import TensorBoardLogs
from search_spaces.space import SearchSpace
from trainables.store import StorageError

SPACE = SearchSpace.load("sase_tiny")
RESULT = {"test_accuracy": 0.9, "search_samples": 20, "parameters": 5, "macs": 7, "latency_ms": 0.5}


def row(samples, loss, **extra):
    return {
        "search_samples": samples,
        "search_seconds": samples / 10 + 0.2,
        "incumbent_val_loss": loss,
        "incumbent_val_accuracy": 1 - loss / 10,
        **extra,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensorboard")
    logs = TensorBoardLogs(folder, SPACE)
    logs.log_evaluation("random", 0, row(100, 2.0))
    logs.log_evaluation("random", 1, row(120, float("inf")))
    logs.log_evaluation("random", 0, row(200, 1.5))
    alpha = {variable.name: [0.5, 0.3, 0.2] for variable in SPACE.variables}
    logs.log_evaluation("darts", 0, row(150, 1.0, alpha=alpha))
    for name in ("random", "darts", "baseline se"):
        logs.log_result(name, {"strategy": name.split()[-1], "budget": 1000}, RESULT)
    logs.close()
    return folder


def test_there_is_a_folder_a_strategy_and_steps_are_samples(folder):
    assert {p.name for p in folder.iterdir()} == {"random", "darts", "baseline se"}
    events = EventAccumulator(str(folder / "random" / "seed0")).Reload()
    over_samples = events.Scalars("incumbent over samples/val_loss")
    assert [(e.step, e.value) for e in over_samples] == [(100, 2.0), (200, 1.5)]
    over_seconds = events.Scalars("incumbent over seconds/val_accuracy")
    assert [e.step for e in over_seconds] == [10, 20]
    assert [e.value for e in over_seconds] == pytest.approx([0.8, 0.85])


def test_alpha_has_a_tag_an_operation(folder):
    events = EventAccumulator(str(folder / "darts" / "seed0")).Reload()
    tags = {tag for tag in events.Tags()["scalars"] if tag.startswith("alpha ")}
    assert tags == {f"alpha {v.name}/{op}" for v in SPACE.variables for op in v.choices}
    first = SPACE.variables[0]
    values = [events.Scalars(f"alpha {first.name}/{op}")[0].value for op in first.choices]
    assert values == pytest.approx([0.5, 0.3, 0.2])
    assert events.Scalars(f"alpha {first.name}/{first.choices[0]}")[0].step == 150


@pytest.fixture(scope="module")
def ask(folder, tmp_path_factory):
    """Ask a running TensorBoard: ``ask(path, body)``."""
    log = tmp_path_factory.mktemp("log") / "stderr"
    with log.open("w") as stderr:
        server = subprocess.Popen(
            [
                *[sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)],
                *["--port", "0", "--host", "127.0.0.1", "--load_fast", "false"],
            ],
            stdout=stderr,
            stderr=stderr,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
    try:
        deadline = time.monotonic() + 90
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)

        def request(path, body=None, **query):
            url = f"{found.group()}data/{path}"
            url += f"?{urllib.parse.urlencode(query)}" if query else ""
            data = None if body is None else json.dumps(body).encode()
            asked = urllib.request.Request(url, data, {"Content-Type": "application/json"})
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return json.load(answer)

        # The server answers before it has read everything.
        while len(request("plugin/scalars/tags")) < 6:
            assert time.monotonic() < deadline, request("plugin/scalars/tags")
            time.sleep(0.3)
        yield request
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.slow
def test_tensorboard_overlays_the_strategies(ask):
    runs = ask("plugin/scalars/tags")
    assert set(runs) == {
        "random", "random/seed0", "random/seed1", "darts", "darts/seed0", "baseline se",
    }  # fmt: skip
    for run in ("random/seed0", "random/seed1", "darts/seed0"):
        assert "incumbent over samples/val_loss" in runs[run]
        assert "incumbent over seconds/val_accuracy" in runs[run]
    tag = "incumbent over samples/val_loss"
    points = ask("plugin/scalars/scalars", run="random/seed0", tag=tag)
    assert [(step, value) for _, step, value in points] == [(100, 2.0), (200, 1.5)]


@pytest.mark.slow
def test_tensorboard_fills_the_hparams_tab(ask):
    name = {"experimentName": ""}
    experiment = ask("plugin/hparams/experiment", name)
    assert {info["name"] for info in experiment["hparamInfos"]} == {"strategy", "budget"}
    metrics = [
        {"group": info["name"]["group"], "tag": info["name"]["tag"]}
        for info in experiment["metricInfos"]
    ]
    assert {metric["tag"] for metric in metrics} >= {f"final/{key}" for key in RESULT}
    groups = ask(
        "plugin/hparams/session_groups",
        {
            **name,
            "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_RUNNING"],
            "colParams": [{"metric": metric} for metric in metrics],
            "startIndex": 0,
            "sliceSize": 10,
        },
    )["sessionGroups"]
    found = {
        group["hparams"]["strategy"]: {
            value["name"]["tag"]: value["value"] for value in group["metricValues"]
        }
        for group in groups
    }
    assert set(found) == {"random", "darts", "se"}
    assert found["darts"]["final/test_accuracy"] == pytest.approx(0.9)
    assert found["se"]["final/parameters"] == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_is_told_and_what_was_there_stays(small_disk):
    disk, _ = small_disk
    logs = TensorBoardLogs(disk, SPACE)
    logs.log_evaluation("random", 0, row(100, 2.0))
    (disk / "other").write_bytes(b"x" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize))

    def log_more():
        for samples in range(101, 400):
            logs.log_evaluation("random", 0, row(samples, 1.0))

    with pytest.raises(StorageError, match=r"cannot be written: .*No space left on device"):
        log_more()
    with pytest.raises(StorageError, match="cannot be written"):
        logs.log_result("random", {"strategy": "random"}, RESULT)
    logs.close()
    found = EventAccumulator(str(disk / "random" / "seed0")).Reload()
    assert found.Scalars("incumbent over samples/val_loss")[0].value == 2.0
