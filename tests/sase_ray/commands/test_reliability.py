"""The study of a protocol's reliability, and the tabulation of a space, on Ray."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console
from scipy.stats import kendalltau

from sase_ray.analysis.proxy_validity import measured_validity, validity_sentences
from sase_ray.analysis.reliability_table import read_table, reliability_table
from sase_ray.cli.output import print_reliability
from sase_ray.commands.reliability import measure_reliability
from sase_ray.commands.tabulate import tabulate
from sase_ray.config import load_config
from sase_ray.execution.experiment import Experiment
from sase_ray.tabular_benchmark.benchmark import TabularBenchmark
from search_spaces.errors import UserError
from tests.patience import PATIENCE, wait_until
from trainables.proxy.trainable import ProxyTrainable
from trainables.proxy.warm_host import train_host
from trainables.tasks.classification import CLASSIFICATION


def curves_of(losses: np.ndarray, lost: tuple[int, ...] = ()) -> pd.DataFrame:
    """Curves of losses (genotype, seed, epoch)."""
    return pd.DataFrame(
        [
            {
                "genotype": f"g{g:02d}",
                "seed": seed,
                "epoch": epoch + 1,
                "samples": 100 * (epoch + 1),
                "train_seconds": 2.0 * (epoch + 1),
                "val_loss": losses[g, seed, epoch],
                "val_accuracy": 1 - losses[g, seed, epoch],
                "diverged": g in lost and seed == 0,
            }
            for g, seed, epoch in np.ndindex(losses.shape)
        ]
    )


def made_up_losses(genotypes: int, seeds: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    genotype = rng.normal(0, 0.02, (genotypes, 1, 1))
    seed = rng.normal(0, 0.05, (1, seeds, 1))
    noise = rng.normal(0, 1, (genotypes, seeds, 2)) * [0.04, 0.01]
    return 0.5 + genotype + seed + noise


@pytest.mark.slow
def test_known_components_are_found_at_every_epoch() -> None:
    table, left_out = reliability_table(curves_of(made_up_losses(200, 5)))
    assert left_out == {}
    assert table["metric"].tolist() == ["val_loss"] * 2 + ["val_accuracy"] * 2
    for row, noise in zip(table.to_dict("records"), [0.04, 0.01] * 2, strict=True):
        assert row["sd_genotype"] == pytest.approx(0.02, rel=0.15)
        assert row["sd_residual"] == pytest.approx(noise, rel=0.1)
        true = 0.02**2 / (0.02**2 + noise**2)
        assert row["icc_low"] <= true <= row["icc_high"]
        assert row["icc_k"] == pytest.approx(0.02**2 / (0.02**2 + noise**2 / 5), rel=0.2)
        assert row["seeds_for_half"] in {0.04: (3, 4, 5), 0.01: (1,)}[noise]
        assert row["icc_unpaired"] < row["icc"]
        assert row["tau_low"] < row["tau"] < row["tau_high"]
    assert table["samples"].tolist() == [100, 200] * 2
    assert table["seconds"].tolist() == [2.0, 4.0] * 2
    words = " ".join(read_table(table, {}, "val_loss", CLASSIFICATION))
    assert re.search(r"ICC of 0\.[78]", words)
    assert "more noise than signal" not in words


@pytest.mark.slow
def test_genotypes_that_diverge_are_left_out_and_counted() -> None:
    losses = made_up_losses(12, 3)
    losses[4, 0] = np.inf
    table, left_out = reliability_table(curves_of(losses, lost=(4,)))
    assert left_out == {"g04": "diverged"}
    assert table["genotypes"].unique().tolist() == [11]
    assert "1 genotype(s) diverged" in " ".join(
        read_table(table, left_out, "val_loss", CLASSIFICATION)
    )
    with pytest.raises(UserError, match="11 of 12 genotypes diverged or failed"):
        reliability_table(curves_of(losses, lost=tuple(range(11))))


@pytest.mark.slow
def test_a_trial_that_did_not_come_to_its_end_leaves_its_genotype_out() -> None:
    curves = curves_of(made_up_losses(12, 3))
    cut = (curves["genotype"] == "g07") & (curves["seed"] == 1) & (curves["epoch"] == 2)
    table, left_out = reliability_table(curves[~cut])
    assert left_out == {"g07": "failed"}
    assert table["genotypes"].unique().tolist() == [11]


@pytest.mark.slow
def test_last_weights_that_blew_up_cost_their_own_metric_alone() -> None:
    curves = curves_of(made_up_losses(12, 3)).assign(last_val_loss=lambda c: c["val_loss"])
    curves.loc[curves["genotype"] == "g02", "last_val_loss"] = np.inf
    table, left_out = reliability_table(curves)
    assert left_out == {}
    counts = table.groupby("metric")["genotypes"].first().to_dict()
    assert counts == {"val_loss": 12, "val_accuracy": 12, "last_val_loss": 11}


def test_a_protocol_that_ranks_luck_is_called_so() -> None:
    losses = made_up_losses(12, 3)
    losses = losses - losses.mean(axis=1, keepdims=True)
    table, _ = reliability_table(curves_of(losses))
    assert "more noise than signal" in " ".join(read_table(table, {}, "val_loss", CLASSIFICATION))


@pytest.mark.ray
def test_random_genotypes_are_trained_with_every_seed(tiny, ray_cluster, tmp_path) -> None:
    host = {"epochs": 1, "batch_size": 96}
    proxy = tiny["proxy"] | {"averaging": 0.5, "warm_host": host}
    report = measure_reliability(
        tiny | {"run": "study", "proxy": proxy, "storage": str(tmp_path / "storage")},
        genotypes=3,
        seeds=2,
        console=Console(quiet=True),
    )
    trials = pd.read_parquet(report.folder / "trials.parquet")
    assert trials.groupby("genotype")["seed"].nunique().tolist() == [2, 2, 2]
    assert (trials["status"] == "finished").all()
    assert set(report.table["metric"]) == {
        "val_loss",
        "val_accuracy",
        "last_val_loss",
        "last_val_accuracy",
    }
    assert report.table["epoch"].unique().tolist() == [1, 2]
    assert (report.folder / "reliability.png").stat().st_size > 10_000
    assert (report.table["host_samples"] == 96).all()
    assert (report.table["host_seconds"] > 0).all()
    pd.testing.assert_frame_equal(
        pd.read_csv(report.folder / "reliability.csv"), report.table, check_dtype=False
    )
    assert not (report.folder / "tune").exists()
    for name in ("reliability.csv", "reliability.png"):
        copy = tmp_path / "storage" / "study" / name
        assert copy.read_bytes() == (report.folder / name).read_bytes()
    # Each search trained with its own seed, not with that of the search beside it.
    curves = pd.read_parquet(report.folder / "curves.parquet")
    setup = Experiment.of(load_config(tiny | {"proxy": proxy}))
    for seed in (0, 1):
        job = setup.task(seed).job
        job = replace(job, host=train_host(job))
        row = curves[(curves["seed"] == seed) & (curves["epoch"] == 1)].iloc[0]
        trial = ProxyTrainable.__new__(ProxyTrainable)
        trial.setup(job.space.to_config(job.space.parse(row["genotype"])), job=job)
        assert trial.step()["val_loss"] == pytest.approx(row["val_loss"], rel=1e-5)
    recorded = yaml.safe_load((report.folder / "config.yaml").read_text())
    # The host's 96 samples, and three genotypes of two epochs of 96, with 60 validation images.
    assert recorded["config"]["budget"] == 96 + 3 * 232


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"genotypes": 1}, "genotypes must be at least 2"),
        ({"seeds": 1}, "seeds must be at least 2"),
        ({"genotypes": 1000}, "729"),
    ],
)
def test_a_study_that_tells_nothing_is_refused(counts, message, tiny) -> None:
    with pytest.raises(UserError, match=message):
        measure_reliability(tiny, **counts)


@pytest.fixture
def small_space(write_space, tiny):
    path = write_space({"channel_excite": ["affine", "conv3"], "spatial_excite": ["conv3x3"]})
    return tiny | {"space": str(path)}


def content(path):
    table = TabularBenchmark.load(path)
    rows = table.rows.drop(columns="train_seconds").sort_values(["seed", "genotype", "epoch"])
    return rows.reset_index(drop=True)


@pytest.mark.ray
def test_a_space_is_tabulated_in_one_sitting_or_several(small_space, ray_cluster, tmp_path) -> None:
    options = {"repeated": 2, "seeds": 2, "console": Console(quiet=True)}
    whole = tmp_path / "whole.parquet"
    assert tabulate(whole, small_space, **options) == 0
    table = TabularBenchmark.load(whole)
    assert table.space.size == 2
    assert len(table.rows) == 4 * 2
    ends = table.rows[table.rows["epoch"] == 2]
    assert ends["test_loss"].notna().all()
    assert table.rows[table.rows["epoch"] == 1]["test_loss"].isna().all()

    # A sitting that has no time begins nothing; the next one goes on where the last stopped.
    parts = tmp_path / "parts.parquet"
    assert tabulate(parts, small_space, minutes=0, **options) == 4
    assert tabulate(parts, small_space, **(options | {"seeds": 1})) == 0
    assert tabulate(parts, small_space, **options) == 0
    pd.testing.assert_frame_equal(content(parts), content(whole))
    assert sorted(p.name for p in tmp_path.glob("*.parquet*")) == ["parts.parquet", "whole.parquet"]

    with pytest.raises(UserError, match="was made with another config"):
        tabulate(parts, small_space | {"proxy": small_space["proxy"] | {"epochs": 3}}, **options)
    with pytest.raises(UserError, match="2 genotypes, not 3"):
        tabulate(parts, small_space, repeated=3)
    with pytest.raises(UserError, match="there is no folder"):
        tabulate(tmp_path / "none" / "table.parquet", small_space)
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(UserError, match="is not a table of sase-ray tabulate"):
        tabulate(tmp_path / "text.parquet", small_space, **options)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.full
def test_a_killed_tabulation_is_gone_on_with(write_space, tiny, tmp_path) -> None:
    space = write_space(
        {"channel_excite": ["affine", "conv3", "fc"], "spatial_squeeze": ["gap", "pnorm"]}
    )
    config = tmp_path / "config.yaml"
    settings = tiny | {"space": str(space)}
    config.write_text(yaml.safe_dump(settings))
    path = tmp_path / "table.parquet"
    program = (
        "import sase_ray.commands.tabulate as t; t.SAVE_SECONDS = 0.0; "
        f"t.tabulate({str(path)!r}, {str(config)!r}, repeated=2, seeds=2)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    driver = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, start_new_session=True
    )
    wait_until(path.exists)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    before = pd.read_parquet(path)
    done = before[before["epoch"] == 2]
    assert 1 <= len(done) < 8

    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=PATIENCE)
    after = pd.read_parquet(path)
    assert not after.duplicated(["genotype", "seed", "epoch"]).any()
    assert len(after) == 8 * 2
    kept = after.merge(before, on=list(before.columns))
    assert len(kept) == len(before)


@pytest.mark.ray
def test_validity_is_that_of_the_final_trainings(tiny, ray_cluster, tmp_path, capsys) -> None:
    """Tau is that of the two result tables, and a comparison of the same protocols is told it."""
    console = Console(width=200)
    settings = tiny | {"results": str(tmp_path), "strategies": ["random"]}
    report = measure_reliability(
        settings, run="study", genotypes=4, seeds=2, final=2, console=console
    )
    assert report.validity is not None
    row = report.validity.set_index(["metric", "final_metric"]).loc[("val_loss", "test_accuracy")]
    row = row[row["epoch"] == row["epoch"].max()].iloc[0]
    finals = pd.read_parquet(report.folder / "final_trainings.parquet")
    assert finals.groupby("genotype").size().tolist() == [2] * 4
    result = -finals.groupby("genotype")["test_accuracy"].mean()
    trials = pd.read_parquet(report.folder / "trials.parquet")
    found = trials.pivot(index="genotype", columns="seed", values="val_loss").loc[result.index]
    taus = [kendalltau(found[seed], result)[0] for seed in found]
    assert row["tau"] == pytest.approx(np.mean(taus))
    print_reliability(console, report)
    printed = capsys.readouterr().out
    assert "validity of the proxy protocol" in printed
    assert "validity.csv" in printed

    config = load_config(settings, {"reliability": str(report.folder)})
    measured = measured_validity(config)
    assert measured is not None
    assert measured["tau"] == pytest.approx(
        report.validity.query("metric == 'val_loss' and final_metric == 'test_accuracy'")[
            "tau"
        ].iloc[-1]
    )
    other = load_config(config, {"final": {"epochs": 7}})
    assert measured_validity(other) is None
    assert "has not been measured" in next(validity_sentences(config, None, "results/x"))
    (report.folder / "validity.csv").write_text("nothing\n")
    with pytest.raises(UserError, match=r"validity: .* is not a table"):
        measured_validity(config)


@pytest.mark.parametrize("final", [1, -2])
def test_one_final_training_cannot_tell_signal_from_noise(tiny, final) -> None:
    with pytest.raises(UserError, match="final must be 0, or at least 2"):
        measure_reliability(tiny, final=final)
