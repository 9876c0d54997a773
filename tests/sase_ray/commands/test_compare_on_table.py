"""Comparisons on a table: what is written, ranks and tests, bad input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from sase_ray.analysis.regret import rank_strategies, regret_blocks, regret_curves
from sase_ray.commands.compare_on_table import compare_on_table, search_table
from sase_ray.statistics.rank_tests import pairwise
from sase_ray.tabular_benchmark.benchmark import TabularBenchmark
from sase_ray.tabular_benchmark.file_format import write_benchmark
from search_spaces.errors import UserError


def ends_of(regrets: dict[str, list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "strategy": name,
                "seed": seed,
                "regret": value,
                "trials": 3,
                "samples": 10,
                "seconds": 1.0,
            }
            for name, own in regrets.items()
            for seed, value in enumerate(own)
        ]
    )


@pytest.fixture(scope="module")
def compared(ray_cluster, made_up_table, tmp_path_factory):
    return compare_on_table(
        made_up_table,
        seeds=20,
        budget=3000,
        results=tmp_path_factory.mktemp("results"),
        console=Console(quiet=True),
    )


@pytest.mark.ray
def test_all_black_box_strategies_are_compared_and_written(compared) -> None:
    assert set(compared.table["name"]) == {"random", "grid", "tpe", "asha", "tpe-asha"}
    assert {p.name for p in compared.folder.iterdir()} == {
        "config.yaml",
        "searches.parquet",
        "regret.parquet",
        "regret.png",
        "strategies.parquet",
        "strategies.csv",
    }
    searches = pd.read_parquet(compared.folder / "searches.parquet")
    assert (searches.groupby("strategy")["seed"].nunique() == 20).all()
    assert (searches["samples"] <= 3000).all()
    assert (searches["regret"] >= 0).all()
    assert any("ICC of one training" in sentence for sentence in compared.reading)


@pytest.mark.ray
def test_a_curve_is_the_mean_regret_of_the_incumbents_of_that_time(compared) -> None:
    searches = pd.read_parquet(compared.folder / "searches.parquet")
    curve = compared.curves[compared.curves["strategy"] == "asha"]
    for point in curve.iloc[[0, 20, -1]].to_dict("records"):
        own = searches[(searches["strategy"] == "asha") & (searches["samples"] <= point["samples"])]
        held = own.groupby("seed")["regret"].last()
        assert len(held) == 20
        assert point["regret"] == pytest.approx(held.mean())


@pytest.mark.ray
def test_the_same_seeds_give_the_same_comparison(compared, made_up_table, tmp_path) -> None:
    again = compare_on_table(
        made_up_table,
        ["asha"],
        seeds=20,
        budget=3000,
        results=tmp_path,
        console=Console(quiet=True),
    )
    first = compared.table.set_index("name").loc["asha", "regret"]
    assert again.table["regret"].iloc[0] == first


def test_without_noise_a_search_answers_with_the_recorded_best_it_saw(made_up_table) -> None:
    from sase_ray.strategies.catalogue import make_strategy

    rows = search_table(make_strategy("grid"), made_up_table, 2, 6050, noise=False)
    assert rows[-1]["genotype"] == rows[-2]["genotype"]
    regrets = [made_up_table.lookup(row["genotype"]).val_loss for row in rows]
    assert regrets == sorted(regrets, reverse=True)
    assert rows[-1]["samples"] == 6050


def test_ranks_and_friedman_agree_with_scipy() -> None:
    rng = np.random.default_rng(0)
    regrets = {
        name: rng.normal(shift, 1, 40).tolist()
        for name, shift in zip("abc", (0, 0.1, 3), strict=True)
    }
    ranking = rank_strategies(ends_of(regrets)).set_index("name")
    blocks = np.array(list(regrets.values())).T
    expected = stats.rankdata(blocks, axis=1).mean(axis=0)
    np.testing.assert_allclose(ranking.loc[["a", "b", "c"], "mean_rank"], expected)
    assert ranking["tied"].to_dict() == {"a": True, "b": True, "c": False}
    # Nemenyi (Demsar 2006, eq. for CD): q(0.05, 3 groups) = 2.343 times sqrt(k(k+1)/6N).
    critical = 2.343 * (3 * 4 / (6 * 40)) ** 0.5
    told_apart = abs(expected[:, None] - expected[None, :]) > critical
    np.testing.assert_array_equal(
        pairwise(regret_blocks(ends_of(regrets))).to_numpy() < 0.05, told_apart
    )


def test_two_strategies_are_tested_by_wilcoxon_and_one_by_nothing() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(0, 1, 30).tolist(), rng.normal(1, 1, 30).tolist()
    p = pairwise(pd.DataFrame({"a": first, "b": second}))
    assert p.loc["a", "b"] == pytest.approx(stats.wilcoxon(first, second).pvalue)
    assert pairwise(pd.DataFrame({"a": first, "b": first})).loc["a", "b"] == 1
    assert rank_strategies(ends_of({"a": first}))["tied"].tolist() == [True]


def test_lost_trainings_leave_curves_and_ranks_finite(make_table) -> None:
    from sase_ray.strategies.catalogue import make_strategy

    table = make_table(diverged=[g for i, g in enumerate(make_table().genotypes) if i % 3 == 0])
    rows = [
        row
        for name in ("random", "asha", "tpe")
        for seed in range(6)
        for row in search_table(make_strategy(name), table, seed, 2000)
    ]
    searches = pd.DataFrame(rows)
    ends = searches.groupby(["strategy", "seed"], sort=False).last().reset_index()
    assert np.isfinite(regret_curves(searches, 2000)[["regret", "low", "high"]]).all().all()
    assert np.isfinite(rank_strategies(ends)[["regret", "ci_low", "mean_rank"]]).all().all()


def test_a_metric_that_tells_nothing_apart_is_refused(make_table, tmp_path) -> None:
    table = make_table(sd_genotype=0.0, sd_noise=0.0)
    alike = table.rows.assign(test_accuracy=table.rows["test_accuracy"].where(
        table.rows["test_accuracy"].isna(), 0.5))  # fmt: skip
    same = TabularBenchmark(alike, table.about)
    with pytest.raises(UserError, match="distinguish no genotypes by test_accuracy"):
        compare_on_table(same, metric="val_accuracy", results=tmp_path, noise=False)
    assert not list(tmp_path.iterdir())


def test_a_table_without_repeats_has_no_noise_to_draw(make_table, tmp_path) -> None:
    with pytest.raises(UserError, match="too few genotypes with several seeds"):
        compare_on_table(make_table(seeds=1), results=tmp_path)
    assert not list(tmp_path.iterdir())


def test_curves_step_at_the_incumbents() -> None:
    searches = pd.DataFrame(
        {
            "strategy": "a",
            "seed": [0, 0, 1, 1],
            "samples": [10, 50, 20, 40],
            "regret": [0.4, 0.2, 0.6, 0.1],
        }
    )
    curve = regret_curves(searches, budget=100)
    assert curve["samples"].iloc[0] == 20
    for samples, expected in ((21, 0.5), (45, 0.25), (60, 0.15)):
        row = curve.iloc[(curve["samples"] - samples).abs().argmin()]
        assert row["regret"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["darts"]}, "does not train genotypes one by one"),
        ({"names": ["rando"]}, "did you mean 'random'"),
        ({"names": ["random", "random"]}, "named twice"),
        ({"seeds": 1}, "at least 2"),
        ({"metric": "test_loss"}, "metric must be one of"),
        ({"budget": 100}, "budget 100 is too small"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"options": {"tpe": {"startup": 3}}}, "startup_trials"),
    ],
)
def test_what_cannot_be_compared_is_refused_and_nothing_written(
    options, message, made_up_table, tmp_path
) -> None:
    with pytest.raises(UserError, match=message):
        compare_on_table(made_up_table, results=tmp_path, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.ray
def test_the_command_line_compares_on_a_table(command, made_up_table, tmp_path) -> None:
    path = tmp_path / "table.parquet"
    write_benchmark(made_up_table.rows, made_up_table.about, path)
    done = command(
        "compare", "--on", str(path), "--strategies", "random,asha", "--seeds", "4",
        "--budget", "2e3", "--results", str(tmp_path), "--run", "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mean rank" in done.stdout
    assert (tmp_path / "run" / "regret.png").stat().st_size > 10_000
    wrong = command("compare", "--on", str(path), "--dataset", "digits")
    assert wrong.returncode == 2
    assert "--dataset does not go with --on" in wrong.stderr
    missing = command("compare", "--on", str(tmp_path / "none.parquet"))
    assert missing.returncode == 2
    assert "there is no table" in missing.stderr
