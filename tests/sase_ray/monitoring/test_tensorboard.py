"""TensorBoard's logs, read back by TensorBoard itself."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sase_ray.analysis import anytime
from sase_ray.analysis.anytime import band
from sase_ray.analysis.outcomes import genotype_table
from sase_ray.monitoring import tensorboard_summary
from sase_ray.monitoring.tensorboard_live import TensorBoardLogs
from sase_ray.monitoring.tensorboard_summary import write_summaries
from sase_ray.results.search_id import SearchId
from search_spaces.space import SearchSpace
from tests.patience import PATIENCE
from trainables.persistence.store import StorageError

SPACE = SearchSpace.load("sase_tiny")
GENOTYPES = [str(SPACE[i]) for i in (0, 100, 200, 300)]
FOLDERS = {
    *("comparison", "progress", "random", "random/seed0", "random/seed1", "darts", "darts/seed0"),
    *("baseline se", *(f"genotypes/{i + 1:02d} {text}" for i, text in enumerate(GENOTYPES))),
}
PROBABILITIES = {variable.name: [0.5, 0.3, 0.2] for variable in SPACE.variables}


def row(strategy, seed, trial, epoch, samples, loss, **extra):
    return {
        "strategy": strategy,
        "seed": seed,
        "trial": trial,
        "epoch": epoch,
        "finished": False,
        "search_samples": samples,
        "search_seconds": samples / 10 + 0.2,
        "incumbent_val_loss": loss,
        "incumbent_val_accuracy": 1 - loss / 10,
        **extra,
    }


ROWS = [
    row("random", 0, "1", 1, 100, 2.0),
    row("random", 1, "1", 1, 120, float("inf")),
    row("random", 0, "2", 1, 200, 1.5),
    row("random", 1, "2", 1, 240, 1.0),
    row("darts", 0, "1", 1, 150, 1.0, alpha=PROBABILITIES, entropy=1.5),
    row("darts", 0, "1", 3, 300, 0.9, alpha=PROBABILITIES, entropy=1.2),
    row("darts", 0, "1", 4, 450, 0.8, alpha=PROBABILITIES, finished=True),
]


def final(name, family, seed, module, accuracy):
    costs = {"parameters": 5, "macs": 7, "latency_ms": 0.5}
    metrics = {"test_accuracy": accuracy, "test_loss": 1 - accuracy}
    return {"name": name, "family": family, "seed": seed, "module": module, **metrics, **costs}


def trial(strategy, genotype, loss, status="finished"):
    family = "one-shot" if strategy == "darts" else "black-box"
    metrics = {"val_loss": loss, "val_accuracy": 1 - loss}
    return {
        "strategy": strategy, "family": family, "genotype": genotype, "status": status, **metrics,
    }  # fmt: skip


def made_tables():
    """Tables of a run of two strategies and a baseline."""
    first, second, third, fourth = GENOTYPES
    finals = [
        final("random", "black-box", 0, second, 0.7),
        final("random", "black-box", 1, first, 0.8),
        final("darts", "one-shot", 0, first, 0.9),
        final("se", "baseline", 0, "se", 0.6),
    ]
    strategies = [
        {
            "name": name,
            "family": family,
            "test_accuracy": accuracy,
            "difference": float("nan"),
            "search_samples": 20,
            "parameters": 5,
        }
        for name, family, accuracy in (
            ("random", "black-box", 0.75),
            ("darts", "one-shot", 0.9),
            ("se", "baseline", 0.6),
        )
    ]
    trials = [
        trial("random", second, 0.4),
        trial("random", first, 0.3),
        trial("random", first, 0.2),
        trial("random", fourth, 0.6),
        trial("random", third, 0.5),
        trial("random", str(SPACE[400]), 0.1, status="stopped"),
        trial("darts", first, 0.9),
    ]
    looks = [
        {
            "module": module,
            "genotype": None,
            "seed": 0,
            "image": image,
            "label": image,
            "predicted": 3,
            "height": 4,
            "width": 6,
            "channels": 3,
            "pixels": bytes(range(72)),
            "cam": bytes(range(24)),
        }
        for module in ("random", "se")
        for image in (3, 5)
    ]
    rankings = [
        {"strategy": name, "seed": seed, "rank": rank, "genotype": text}
        for name, seed, answer in (("random", 0, second), ("random", 1, first), ("darts", 0, first))
        for rank, text in enumerate((answer, third), start=1)
    ]
    alpha = [
        {"variable": edge, "operation": op, "probability": share, "strategy": "darts"}
        | {"seed": 0, "search_samples": samples}
        for samples in (150, 300)
        for edge, shares in PROBABILITIES.items()
        for op, share in zip("abc", shares, strict=True)
    ]
    curves = [{k: v for k, v in r.items() if k not in {"alpha", "finished"}} for r in ROWS]
    return {
        "curves": curves, "final": finals, "strategies": strategies, "trials": trials,
        "gradcam": looks, "rankings": rankings, "alpha": alpha,
    }  # fmt: skip


def logs_in(run, progress=lambda: (0, {})):
    logs = TensorBoardLogs(SPACE, ["val_loss", "val_accuracy"], progress)
    logs.run_began(run)
    return logs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    clock = iter([0, 4, 5])
    logs = logs_in(run, lambda: ((now := next(clock)), {"budget used": now / 10, "failures": 1}))
    for one in ROWS:
        logs.evaluated(SearchId(one["strategy"], one["seed"]), one)
    for _ in range(3):
        logs.tick(last=False)
    logs.run_ended()
    for name, rows in made_tables().items():
        pd.DataFrame(rows).to_parquet(run / f"{name}.parquet")
    write_summaries(run)
    return run / "tensorboard"


def events_of(folder, run):
    everything = {"scalars": 0, "histograms": 0, "images": 0}
    return EventAccumulator(str(folder / run), everything).Reload()


def points(events, tag):
    return [(e.step, pytest.approx(e.value)) for e in events.Scalars(tag)]


def test_there_is_a_folder_a_strategy_and_a_row_and_steps_are_costs(folder):
    found = {path.parent.relative_to(folder).as_posix() for path in folder.rglob("events.*")}
    assert found == FOLDERS
    events = events_of(folder, "random/seed0")
    assert points(events, "incumbent over samples/val_loss") == [(100, 2.0), (200, 1.5)]
    assert points(events, "incumbent over seconds/val_accuracy") == [(10, 0.8), (20, 0.85)]
    assert points(events, "incumbent over trials/val_loss") == [(1, 2.0), (2, 1.5)]
    # What the final training made of the answer stands at the end of the search.
    assert points(events, "incumbent over samples/test_accuracy") == [(200, 0.7)]
    assert points(events, "incumbent over trials/test_loss") == [(2, 0.3)]
    assert points(events_of(folder, "progress"), "progress/budget used") == [(0, 0), (5, 0.5)]


def test_alpha_has_a_tag_an_operation_histograms_and_images(folder):
    events = events_of(folder, "darts/seed0")
    tags = {tag for tag in events.Tags()["scalars"] if tag.startswith("probability ")}
    assert tags == {f"probability {v.name}/{op}" for v in SPACE.variables for op in v.choices}
    first = SPACE.variables[0]
    values = [events.Scalars(f"probability {first.name}/{op}")[0].value for op in first.choices]
    assert values == pytest.approx([0.5, 0.3, 0.2])
    assert points(events, "signs of collapse/entropy") == [(150, 1.5), (300, 1.2)]
    histogram = events.Histograms(f"operations/{first.name}")
    assert [h.step for h in histogram] == [1, 3, 4]
    assert histogram[0].histogram_value.num == 3
    assert histogram[0].histogram_value.sum == pytest.approx(1)
    assert [i.step for i in events.Images("operations/probabilities")] == [1, 4]
    assert len(events.Images("operations/over samples")) == 1


def test_probabilities_that_are_not_numbers_do_no_harm(tmp_path):
    logs = logs_in(tmp_path)
    alpha = {edge: [float("nan")] * 3 for edge in PROBABILITIES}
    logs.evaluated(SearchId("darts", 0), row("darts", 0, "1", 1, 150, float("inf"), alpha=alpha))
    logs.run_ended()
    tables = {name: pd.DataFrame(rows) for name, rows in made_tables().items()}
    tables["alpha"]["probability"] = float("nan")
    for name, table in tables.items():
        table.to_parquet(tmp_path / f"{name}.parquet")
    write_summaries(tmp_path)
    events = events_of(tmp_path / "tensorboard", "darts/seed0")
    assert events.Tags()["histograms"] == []
    assert len(events.Images("operations/over samples")) == 1


def test_logs_that_cannot_be_written_are_told_in_a_sentence(tmp_path):
    for name, rows in made_tables().items():
        pd.DataFrame(rows).to_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(StorageError, match="tensorboard cannot be written"):
        write_summaries(tmp_path)


def test_a_band_is_mean_lowest_and_highest_of_the_seeds_at_equal_cost():
    seeds = {0: [(1, 5.0), (4, 3.0)], 1: [(2, 8.0), (3, 7.0), (9, 1.0)]}
    curves = pd.DataFrame(
        {"seed": seed, "cost": cost + 0.1, "value": value}
        for seed, steps in seeds.items()
        for cost, value in steps
    )
    found = band(curves, "cost", "value")
    assert found.reset_index().to_numpy().tolist() == [
        [2, 6.5, 5, 8], [3, 6.0, 5, 7], [4, 5.0, 3, 7], [9, 2.0, 1, 3],
    ]  # fmt: skip
    curves["value"] = np.inf
    assert band(curves, "cost", "value").empty


def test_a_long_band_keeps_its_ends():
    curves = pd.DataFrame({"seed": 0, "cost": range(5000), "value": np.arange(5000) / 2})
    found = band(curves, "cost", "value")
    assert len(found) == anytime.POINTS
    assert (found.index[0], found.index[-1]) == (0, 4999)
    assert (found["mean"] == found.index / 2).all()


def test_genotypes_with_final_trainings_come_first_then_the_better():
    tables = {name: pd.DataFrame(rows) for name, rows in made_tables().items()}
    first, second, third, fourth = GENOTYPES
    found = genotype_table(tables["trials"], tables["final"])
    assert list(found.index) == [first, second, third, fourth]
    assert found.loc[first, "val_loss"] == pytest.approx(0.25), "of two trials, not the supernet"
    assert found.loc[first, "test_accuracy"] == pytest.approx(0.85)
    assert list(genotype_table(tables["trials"], None).index) == [first, second, third, fourth]


def test_a_single_search_has_no_final_trainings(tmp_path):
    for name in ("curves", "trials", "rankings"):
        pd.DataFrame(made_tables()[name]).to_parquet(tmp_path / f"{name}.parquet")
    pd.DataFrame([]).to_parquet(tmp_path / "alpha.parquet")
    write_summaries(tmp_path)
    events = events_of(tmp_path / "tensorboard", "random/seed0")
    assert events.Tags()["images"] == ["modules found/block"]
    assert not any("test" in tag for tag in events.Tags()["scalars"])


def test_so_many_genotypes_that_all_folders_are_selected(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard_summary, "SELECTED_FOLDERS", 9)
    for name, rows in made_tables().items():
        pd.DataFrame(rows).to_parquet(tmp_path / f"{name}.parquet")
    write_summaries(tmp_path)
    logs = tmp_path / "tensorboard"
    assert len({path.parent for path in logs.rglob("events.*")}) == 9
    assert len(list((logs / "genotypes").iterdir())) == 2


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
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)

        def request(path, body=None, **query):
            url = f"{found.group()}data/{path}"
            url += f"?{urllib.parse.urlencode(query)}" if query else ""
            data = None if body is None else json.dumps(body).encode()
            asked = urllib.request.Request(url, data, {"Content-Type": "application/json"})
            with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
                content = answer.read()
                is_json = "json" in answer.headers["Content-Type"]
                return json.loads(content) if is_json else content

        # The server answers before it has read everything.
        while len(request("runs")) < len(FOLDERS):
            assert time.monotonic() < deadline, request("runs")
            time.sleep(0.3)
        yield request
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.slow
def test_tensorboard_overlays_the_strategies(ask):
    runs = ask("plugin/scalars/tags")
    assert set(ask("runs")) == FOLDERS
    for run in ("random/seed0", "random/seed1", "darts/seed0"):
        for cost in ("samples", "seconds", "trials"):
            for metric in ("val_loss", "val_accuracy", "test_accuracy"):
                assert f"incumbent over {cost}/{metric}" in runs[run]
    tag = "incumbent over samples/val_loss"
    found = ask("plugin/scalars/scalars", run="random/seed0", tag=tag)
    assert [(step, value) for _, step, value in found] == [(100, 2.0), (200, 1.5)]
    assert min(tag for tags in runs.values() for tag in tags).startswith("incumbent over samples")


@pytest.mark.slow
def test_tensorboard_shows_bands_and_searches_in_one_chart_each(ask):
    layout = ask("plugin/custom_scalars/layout")
    charts = {c["title"]: c for c in layout["category"][0]["chart"]}
    (series,) = charts["val_loss over samples"]["margin"]["series"]
    tags = ask("plugin/scalars/tags")
    values = {}
    for run in ("random", "darts"):
        for key in ("value", "lower", "upper"):
            assert series[key] in tags[run]
            found = ask("plugin/scalars/scalars", run=run, tag=series[key])
            values[run, key] = [(step, value) for _, step, value in found]
    # The second seed has no finite loss before 240 samples.
    assert values["random", "value"] == [(240, 1.25)]
    assert values["random", "lower"] == [(240, 1.0)]
    assert values["random", "upper"] == [(240, 1.5)]
    assert [step for step, _ in values["darts", "value"]] == [150, 300, 450]
    everywhere = set()
    for category in layout["category"][1:]:
        for chart in category["chart"]:
            (pattern,) = chart["multiline"]["tag"]
            for run in ("random/seed0", "darts/seed0"):
                found = ask("plugin/custom_scalars/scalars", run=run, tag=pattern)
                assert found["regex_valid"]
                if found["tag_to_events"]:
                    everywhere.add(category["title"])
    assert everywhere == {category["title"] for category in layout["category"][1:]}


@pytest.mark.slow
def test_tensorboard_fills_the_hparams_tab(ask):
    name = {"experimentName": ""}
    experiment = ask("plugin/hparams/experiment", name)
    edges = {variable.name for variable in SPACE.variables}
    assert {info["name"] for info in experiment["hparamInfos"]} == {"family", *edges}
    metrics = [
        {"group": info["name"]["group"], "tag": info["name"]["tag"]}
        for info in experiment["metricInfos"]
    ]
    assert metrics[0]["tag"] == "result/test_accuracy"
    groups = ask(
        "plugin/hparams/session_groups",
        {
            **name,
            "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_RUNNING"],
            "colParams": [{"metric": metric} for metric in metrics],
            "startIndex": 0,
            "sliceSize": 100,
        },
    )["sessionGroups"]
    found = {
        group["name"]: {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
        for group in groups
    }
    assert set(found) == {folder for folder in FOLDERS if "/" not in folder} - {
        "comparison", "progress",
    } | {folder for folder in FOLDERS if folder.startswith("genotypes/")}  # fmt: skip
    assert found["darts"]["result/test_accuracy"] == pytest.approx(0.9)
    assert found["baseline se"]["result/parameters"] == 5
    best = f"genotypes/01 {GENOTYPES[0]}"
    assert found[best]["result/val_loss"] == pytest.approx(0.25)
    assert found[best]["result/test_accuracy"] == pytest.approx(0.85)
    hparams = {group["name"]: group["hparams"] for group in groups}
    assert hparams[best] == {"family": "genotype"} | dict(
        zip((v.name for v in SPACE.variables), GENOTYPES[0].split("-"), strict=True)
    )


@pytest.mark.slow
def test_tensorboard_shows_blocks_alpha_and_panels(ask):
    tags = ask("plugin/images/tags")
    shown = {(run, tag) for run, of_run in tags.items() for tag in of_run}
    assert shown == {
        ("comparison", "looks/Grad-CAM on test images"),
        ("darts/seed0", "operations/probabilities"),
        ("darts/seed0", "operations/over samples"),
        *((run, "modules found/block") for run in ("random/seed0", "random/seed1", "darts/seed0")),
    }
    for run, tag in shown:
        for image in ask("plugin/images/images", run=run, tag=tag, sample=0):
            content = ask(f"plugin/images/individualImage?{image['query']}")
            picture = np.asarray(Image.open(io.BytesIO(content)))
            assert picture.std() > 5, "something is drawn"
    histograms = ask("plugin/histograms/tags")
    assert set(histograms["darts/seed0"]) == {f"operations/{v.name}" for v in SPACE.variables}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_is_told_and_what_was_there_stays(small_disk):
    disk, _ = small_disk
    logs = logs_in(disk)
    logs.evaluated(SearchId("random", 0), row("random", 0, "1", 1, 100, 2.0))
    (disk / "other").write_bytes(b"x" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize))

    def log_more():
        for samples in range(101, 400):
            logs.evaluated(SearchId("random", 0), row("random", 0, "1", samples, samples, 1.0))

    with pytest.raises(StorageError, match=r"cannot be written: .*No space left on device"):
        log_more()
    logs.run_ended()
    found = EventAccumulator(str(disk / "tensorboard" / "random" / "seed0")).Reload()
    assert found.Scalars("incumbent over samples/val_loss")[0].value == 2.0
