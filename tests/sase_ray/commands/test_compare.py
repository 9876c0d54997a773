"""Whole comparisons on real digits: what is written, and that it can be reproduced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from sase_ray import compare, load_config, search
from sase_ray.commands.compare import compare as compare_in_full
from sase_ray.execution.experiment import Experiment
from search_spaces.errors import UserError
from search_spaces.genotype import EDGES
from tests.patience import PATIENCE, wait_until
from trainables.final.training import train_final

pytestmark = [pytest.mark.ray, pytest.mark.slow]

IN_TABLE = {
    "name", "family", "test_accuracy", "ci_low", "ci_high", "units", "search_samples",
    "search_seconds", "trials", "parameters", "macs", "latency_ms", "genotypes", "difference",
    "p_value", "p_holm", "significant",
}  # fmt: skip
COLUMNS = {
    "strategies": IN_TABLE,
    "final": {"name", "family", "seed", "final_seed", "module", "test_accuracy", "test_loss"}
    | {"parameters", "macs", "latency_ms", "samples", "train_seconds"},
    "searches": {"strategy", "seed", "genotype", "samples", "seconds", "trials"},
    "trials": {"strategy", "family", "seed", "trial", "genotype", "status", "reason", *EDGES}
    | {"val_loss", "val_accuracy", "epoch", "samples"},
    "curves": {"strategy", "seed", "trial", "genotype", "epoch", "val_loss", "val_accuracy"}
    | {"search_samples", "search_seconds", "incumbent", "incumbent_val_loss"},
    "alpha": {"strategy", "seed", "search_samples", "variable", "operation", "probability"},
    "rankings": {"strategy", "seed", "rank", "genotype", "score"},
    "gradcam": {"module", "genotype", "seed", "image", "label", "predicted", "height", "width"}
    | {"channels", "pixels", "cam"},
}


def tables(folder):
    return {name: pd.read_parquet(folder / f"{name}.parquet") for name in COLUMNS}


def settings_of(tiny, **overrides):
    return load_config(overrides={**tiny, **overrides})


@pytest.fixture(scope="module")
def done(ray_cluster, tiny_settings, tmp_path_factory):
    """One comparison of three strategies, that several tests look at."""
    results = tmp_path_factory.mktemp("compared")
    settings = {
        **tiny_settings,
        "final": {**tiny_settings["final"], "gradcam_images": 4},
        "results": str(results),
    }
    return compare(**settings, run="first", strategies=["random", "asha", "darts"])


def test_every_table_is_written_with_its_columns(done):
    written = {p.name for p in done.folder.iterdir()}
    assert written == {f"{n}.parquet" for n in COLUMNS} | {
        "strategies.csv", "config.yaml", "tensorboard",
    }  # fmt: skip
    for name, table in tables(done.folder).items():
        assert set(table.columns) >= COLUMNS[name], name
        assert len(table), name
    assert not done.failures
    strategies = pd.read_csv(done.folder / "strategies.csv")
    assert sorted(strategies["name"]) == ["asha", "darts", "none", "random", "se"]
    assert strategies["test_accuracy"].is_monotonic_decreasing
    assert strategies["test_accuracy"].tolist() == pytest.approx(
        done.table["test_accuracy"].tolist()
    )


def test_every_search_keeps_within_the_budget_and_uses_what_it_can(done):
    searches = tables(done.folder)["searches"]
    assert len(searches) == 6
    assert (searches["samples"] <= 600).all()
    # Nobody leaves as much as a full trial (232 samples) unused.
    assert (searches["samples"] > 600 - 232).all()
    curves = tables(done.folder)["curves"]
    last = curves.groupby(["strategy", "seed"])["search_samples"].max()
    assert last.to_dict() == searches.set_index(["strategy", "seed"])["samples"].to_dict()


def test_the_table_says_what_the_final_trainings_say(done):
    all_tables = tables(done.folder)
    final = all_tables["final"]
    mean = final.groupby("name")["test_accuracy"].mean()
    for row in done.table.to_dict("records"):
        assert row["test_accuracy"] == pytest.approx(mean[row["name"]])
    answers = all_tables["searches"].set_index(["strategy", "seed"])["genotype"]
    searched = final[final["family"] != "baseline"]
    assert len(searched) == 6
    for row in searched.to_dict("records"):
        assert row["module"] == answers[row["name"], row["seed"]]
    seeds = final.groupby(["name", "seed"])["final_seed"].first().unstack("name")
    assert (seeds.nunique(axis="columns") == 1).all(), "the same for all strategies: paired"
    assert seeds["random"].is_unique
    best = all_tables["rankings"].query("rank == 1").set_index(["strategy", "seed"])["genotype"]
    assert best.sort_index().to_dict() == answers.sort_index().to_dict()


def test_final_accuracy_is_that_of_an_independent_training(done):
    setup = Experiment.of(load_config(done.folder / "config.yaml"))
    threads = torch.get_num_threads()
    try:
        final = tables(done.folder)["final"]
        chosen = final.groupby("family").head(1)
        assert set(chosen["family"]) == {"black-box", "one-shot", "baseline"}
        for row in chosen.to_dict("records"):
            job = setup.problem.final_job(
                row["module"], baseline=row["family"] == "baseline", seed=row["final_seed"]
            )
            again = train_final(job, setup.problem.final_data)
            assert again["test_accuracy"] == row["test_accuracy"]
            assert again["test_loss"] == row["test_loss"]
            parameters = sum(p.numel() for p in job.build().parameters())
            assert parameters == row["parameters"]
    finally:
        torch.set_num_threads(threads)


def test_the_modules_are_shown_on_the_same_test_images(done):
    shown = tables(done.folder)["gradcam"]
    assert list(shown["module"].unique()) == ["random", "asha", "darts", "none", "se"]
    assert (shown["seed"] == 0).all()
    answers = tables(done.folder)["searches"].query("seed == 0").set_index("strategy")["genotype"]
    test = Experiment.of(load_config(done.folder / "config.yaml")).problem.final_data.test
    for name, rows in shown.groupby("module"):
        assert set(rows["genotype"].dropna()) == ({answers[name]} if name in answers else set())
        assert rows["label"].nunique() == len(rows) == 4
        assert rows["label"].tolist() == test.labels[rows["image"].tolist()].tolist()
        for row in rows.to_dict("records"):
            pixels = test.images[row["image"]].permute(1, 2, 0)
            assert row["pixels"] == pixels.numpy().tobytes()
            assert len(row["cam"]) == row["height"] * row["width"] == 64
    assert (shown.groupby("image")["pixels"].nunique() == 1).all()


def test_alpha_is_a_distribution_over_each_set(done):
    alpha = tables(done.folder)["alpha"]
    assert set(alpha["strategy"]) == {"darts"}
    sums = alpha.groupby(["seed", "search_samples", "variable"])["probability"].sum()
    assert sums.to_numpy() == pytest.approx(1)
    assert set(alpha["variable"]) == set(EDGES)


def test_the_record_tells_splits_seeds_and_searches(done):
    record = yaml.safe_load((done.folder / "config.yaml").read_text())
    assert record["run"]["splits"]["train"] == 96
    assert len(record["run"]["splits"]["sha256"]) == 64
    assert record["run"]["final_splits"]["train"] == 140
    final = tables(done.folder)["final"]
    seeds = final.groupby("seed")["final_seed"].unique().map(list).to_dict()
    assert record["run"]["final_seeds"] == seeds
    assert set(record["run"]["searches"]) == {
        f"{name}/seed{seed}" for name in ("random", "asha", "darts") for seed in (0, 1)
    }


def test_tensorboard_has_a_folder_a_strategy_and_baseline(done):
    folders = {p.name for p in (done.folder / "tensorboard").iterdir()}
    assert folders == {
        *("random", "asha", "darts", "baseline none", "baseline se"),
        *("comparison", "progress", "genotypes"),
    }
    assert {p.name for p in (done.folder / "tensorboard" / "darts").iterdir() if p.is_dir()} == {
        "seed0", "seed1",
    }  # fmt: skip


@pytest.mark.full
def test_the_recorded_configuration_gives_the_same_again(done):
    again = compare(done.folder / "config.yaml", run="again", strategies=["asha"], baselines=[])
    first = tables(done.folder)
    second = tables_of_one(again.folder)
    for name, columns in {
        "searches": ["seed", "genotype", "samples"],
        "final": ["seed", "module", "test_accuracy", "test_loss"],
    }.items():
        column = "strategy" if name == "searches" else "name"
        expected = first[name][first[name][column] == "asha"][columns].reset_index(drop=True)
        pd.testing.assert_frame_equal(second[name][columns], expected)
    with pytest.raises(UserError, match="again exists"):
        compare(done.folder / "config.yaml", run="again")


def tables_of_one(folder):
    return {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("searches", "final")}


@pytest.mark.usefixtures("ray_cluster")
def test_search_runs_one_strategy_without_final_training(tiny):
    # Options of strategies that are not asked for do no harm.
    options = {"tpe": {"startup_trials": 3}}
    report = search("random", **tiny, run="one", strategy_options=options)
    assert report.genotype == report.ranking[0][0]
    scores = [score for _, score in report.ranking]
    assert scores == sorted(scores)
    assert report.outcome.samples <= 600
    names = {p.name for p in report.folder.iterdir()}
    assert "trials.parquet" in names
    assert not names & {"final.parquet", "strategies.csv", "tune"}


GRUMPY = """
from search_spaces.ops import register_op
import torch
from torch import nn

@register_op("channel_excite", "grumpy")
class Grumpy(nn.Module):
    '''A gate that does not want to be in a supernet, which has no affine parameters.'''
    def __init__(self, channels, size, *, affine=True, device=None, dtype=None):
        super().__init__()
        if not affine:
            raise RuntimeError("I am [/not] in a supernet")
    def forward(self, z):
        return torch.sigmoid(z)
"""


@pytest.mark.full
@pytest.mark.usefixtures("ray_cluster")
def test_a_strategy_that_fails_wholly_is_told_and_the_others_go_on(tiny, write_space):
    space = write_space({"refine_excite": ["grumpy"], "spatial_excite": ["affine"]}, GRUMPY)
    result = compare(
        **{**tiny, "space": str(space), "seeds": 1}, strategies=["darts", "random"], run="grumpy"
    )
    assert list(result.failures) == ["darts/seed0"]
    assert "I am [/not] in a supernet" in result.failures["darts/seed0"]
    assert set(result.table["name"]) == {"random", "none", "se"}
    (genotype,) = result.table[result.table["name"] == "random"]["genotypes"]
    assert "grumpy" in genotype, "a user's operation went all the way"
    assert result.table["test_accuracy"].notna().all()


FICKLE = """
from search_spaces.ops import register_op
import torch

@register_op("channel_excite", "fickle")
def fickle(z):
    '''A gate that fails on the 359 test images, which are one batch.'''
    if len(z) > 300:
        raise RuntimeError("too many images")
    return torch.sigmoid(z)
"""


@pytest.mark.usefixtures("ray_cluster")
def test_a_final_training_that_fails_is_told_and_the_others_are_kept(tiny, write_space):
    space = write_space({"refine_excite": ["fickle"]}, FICKLE)
    result = compare(
        **{**tiny, "space": str(space), "seeds": 1, "budget": 240}, strategies=["random"]
    )
    ((label, reason),) = result.failures.items()
    assert label.startswith("final training of gap-affine-fickle")
    assert "too many images" in reason
    assert set(result.table["name"]) == {"none", "se"}
    assert len(result.outcomes) == 1


@pytest.mark.usefixtures("ray_cluster")
def test_when_every_search_fails_there_is_one_sentence(tiny, write_space):
    space = write_space({"refine_excite": ["cross"]}, GRUMPY.replace("grumpy", "cross"))
    with pytest.raises(UserError, match=r"darts/seed0.*I am \[/not\] in a supernet"):
        compare(**{**tiny, "space": str(space), "seeds": 1}, strategies=["darts"], run="none")


def _family(root):
    """Return the processes that descend from one, with their command lines."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text()
        except OSError:  # it has ended
            continue
        if fields[0] != "Z":
            parents[int(folder.name)] = int(fields[1])
            commands[int(folder.name)] = command
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: commands[pid] for pid in found - {root}}


@pytest.mark.usefixtures("ray_cluster")
def test_a_search_whose_own_process_is_killed_goes_on(tiny):
    killed = []

    def kill_the_first():
        deadline = time.monotonic() + PATIENCE
        while not killed and time.monotonic() < deadline:
            for pid, command in _family(os.getpid()).items():
                if command.startswith("ray::SearchProcess.run"):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    break
            time.sleep(0.1)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    settings = {**tiny, "seeds": 1, "baselines": [], "strategies": ["random"]}
    settings["resources"] = {"trials_at_once": 1}  # two would end in any order
    result = compare_in_full(**settings, run="killed")
    killer.join()
    assert len(killed) == 1
    assert result.failures == {}
    undisturbed = compare_in_full(**settings, run="other")
    tables = [
        pd.read_parquet(one.folder / "curves.parquet").drop(
            columns=["train_seconds", "search_seconds", "peak_memory_mib"]
        )
        for one in (result, undisturbed)
    ]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.full
def test_a_killed_driver_leaves_whole_files_and_a_folder_that_is_refused(tiny, command, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**tiny, "run": "killed", "final": {"epochs": 99}}))
    arguments = ["compare", "--config", str(path), "--strategies", "random"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    driver = subprocess.Popen(
        [sys.executable, "-m", "sase_ray", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    folder = tmp_path / "results" / "killed"

    def check():
        assert driver.poll() is None

    try:
        wait_until((folder / "rankings.parquet").exists, check)
        # Ray's agents end, too, but look only once a minute whether they should.
        workers = {
            pid
            for pid, command in _family(driver.pid).items()
            if command.startswith("ray::") and "Agent" not in command
        }
    finally:
        driver.kill()
        driver.wait(PATIENCE)
    assert not (folder / "strategies.csv").exists(), "it was killed before its end"
    assert workers
    # Its own Ray cluster ends with it.
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    written = {p.name for p in folder.iterdir() if not p.name.startswith(".")}
    assert {"config.yaml", "trials.parquet", "curves.parquet"} <= written
    for table in folder.glob("*.parquet"):
        pd.read_parquet(table)
    load_config(folder / "config.yaml")
    refused = command(*arguments)
    assert refused.returncode == 2
    assert "killed exists" in refused.stderr
    assert refused.stderr.count("\n") == 1
