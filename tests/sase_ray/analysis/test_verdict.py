"""The table of a comparison on made-up final trainings."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sase_ray.analysis.verdict import judge
from sase_ray.statistics.paired_tests import detectable_difference
from trainables.metrics import LOSS
from trainables.tasks.distillation import AGREEMENT, NORMALISED_ERROR

SEARCHES = pd.DataFrame(
    [
        {
            "strategy": name,
            "seed": seed,
            "samples": 100 + seed,
            "seconds": 2.0,
            "trials": 5,
            "peak_memory_mib": 9.0,
        }
        for name in ("random", "darts", "tpe")
        for seed in range(3)
    ]
)


def finals(**accuracy):
    """``name=[[final trainings of seed 0], [of seed 1], ...]``; ``base_x`` is baseline x."""
    rows = []
    for name, by_seed in accuracy.items():
        for seed, values in enumerate(by_seed):
            for i, value in enumerate(values):
                rows.append(
                    {
                        "name": name.removeprefix("base_"),
                        "family": "baseline" if name.startswith("base_") else "black-box",
                        "seed": seed,
                        "final_seed": seed * len(values) + i,
                        "module": f"{name}{seed}",
                        "test_accuracy": 0.0 if value is None else value,
                        "diverged": value is None,
                        "parameters": 10 + seed,
                        "macs": 100,
                        "latency_ms": 1.5,
                    }
                )
    return pd.DataFrame(rows)


def verdict_of(test_size=10_000, searches=SEARCHES, **accuracy):
    verdict = judge(finals(**accuracy), searches, test_size=test_size, dataset="made_up")
    return verdict.table.set_index("name"), " ".join(verdict.reading)


def test_final_trainings_are_averaged_and_strategies_paired_by_search_seed():
    table, reading = verdict_of(
        random=[[0.50, 0.52], [0.60, 0.62], [0.70, 0.72]],
        darts=[[0.55, 0.57], [0.66, 0.68], [0.74, 0.76]],
    )
    own, chance = [0.56, 0.67, 0.75], [0.51, 0.61, 0.71]
    row = table.loc["darts"]
    assert row["p_value"] == pytest.approx(stats.ttest_rel(own, chance).pvalue)
    assert row["p_value"] < 0.05 < stats.ttest_ind(own, chance).pvalue, "pairing matters"
    assert row["p_holm"] == pytest.approx(row["p_value"])
    assert row["difference"] == pytest.approx(0.05)
    assert row["test_accuracy"] == pytest.approx(0.66)
    error = stats.t.ppf(0.975, 2) * stats.sem(own)
    assert row["ci_high"] == pytest.approx(0.66 + error)
    assert row["ci_low"] == pytest.approx(0.66 - error)
    assert row["units"] == 3
    assert row["search_samples"] == 101
    assert row["genotypes"] == "darts0 darts1 darts2"
    assert row["significant"]
    assert "darts is better than random search by 5.00 points" in reading
    assert "3 independent searches each" in reading
    assert math.isnan(table.loc["random", "p_value"])
    assert list(table.index) == ["darts", "random"]


def test_a_worse_strategy_is_called_worse():
    _, reading = verdict_of(random=[[0.8], [0.81], [0.79]], darts=[[0.5], [0.51], [0.495]])
    assert "darts is worse than random search by" in reading


def test_one_search_seed_is_judged_by_its_final_trainings():
    table, reading = verdict_of(random=[[0.5, 0.6, 0.7]], darts=[[0.51, 0.64, 0.69]])
    expected = stats.ttest_rel([0.51, 0.64, 0.69], [0.5, 0.6, 0.7]).pvalue
    assert table.loc["darts", "p_value"] == pytest.approx(expected)
    assert table.loc["darts", "units"] == 3
    assert "No strategy can be told apart from random search" in reading
    assert "3 final trainings of one search each" in reading
    smallest = 100 * detectable_difference([[0.01, 0.04, -0.01]], 1, 1e-4)
    assert f"a true difference of {smallest:.2f} points would be found 8 times in 10" in reading


def test_one_final_training_is_no_measure_of_noise():
    table, reading = verdict_of(random=[[0.5]], darts=[[0.9]])
    assert math.isnan(table.loc["darts", "p_value"])
    assert math.isnan(table.loc["darts", "ci_low"])
    assert not table["significant"].any()
    assert table.loc["darts", "difference"] == pytest.approx(0.4)
    assert "no measure of noise" in reading
    assert "better" not in reading


def test_without_random_search_nothing_is_tested():
    table, reading = verdict_of(tpe=[[0.5], [0.6]], darts=[[0.8], [0.9]], base_se=[[0.5], [0.6]])
    assert table[["difference", "p_value", "p_holm"]].isna().all(axis=None)
    assert not table["significant"].any()
    assert "Random search was not among the strategies" in reading


def test_random_search_alone_needs_no_sentence_about_others():
    _, reading = verdict_of(random=[[0.5], [0.6]], base_none=[[0.4], [0.5]])
    assert "random search" not in reading.lower()


def test_identical_results_cannot_be_told_apart():
    same = [[0.5], [0.6], [0.7]]
    table, reading = verdict_of(random=same, darts=same)
    assert table.loc["darts", "p_value"] == 1
    assert table.loc["darts", "p_holm"] == 1
    assert "No strategy can be told apart" in reading
    assert "difference of 0.00 points" not in reading, "rounding alone hides more than nothing"


def test_baselines_are_corrected_among_themselves():
    table, reading = verdict_of(
        random=[[0.500], [0.600], [0.700]],
        tpe=[[0.521], [0.619], [0.723]],
        darts=[[0.530], [0.627], [0.731]],
        base_se=[[0.551], [0.647], [0.748]],
        base_eca=[[0.50], [0.63], [0.69]],
        base_none=[[0.51], [0.58], [0.70]],
    )
    strategies = table.loc[["tpe", "darts"], "p_value"].sort_values()
    baselines = table.loc[["se", "eca", "none"], "p_value"].sort_values()
    for group in (strategies, baselines):
        expected, highest = {}, 0.0
        for rank, (name, p) in enumerate(group.items()):
            highest = max(highest, min(1, p * (len(group) - rank)))
            expected[name] = highest
        for name, p in expected.items():
            assert table.loc[name, "p_holm"] == pytest.approx(p)
    assert table.loc["se", "significant"]
    assert "se is" not in reading, "the reading is about strategies"


def test_a_missing_search_is_left_out_of_its_strategy_only():
    rows = finals(
        random=[[0.50], [0.60], [0.70], [0.65]],
        darts=[[0.52], [0.63], [0.77], [0.69]],
        tpe=[[0.51], [0.60], [0.72], [0.66]],
    )
    lost = (rows["name"] == "darts") & (rows["seed"] == 1)
    verdict = judge(rows[~lost], SEARCHES, test_size=10_000, dataset="made_up")
    table = verdict.table.set_index("name")
    row = table.loc["darts"]
    assert row["test_accuracy"] == pytest.approx((0.52 + 0.77 + 0.69) / 3)
    assert row["units"] == 3
    expected = stats.ttest_rel([0.52, 0.77, 0.69], [0.50, 0.70, 0.65]).pvalue
    assert row["p_value"] == pytest.approx(expected)
    assert row["difference"] == pytest.approx((0.02 + 0.07 + 0.04) / 3)
    assert table.loc["tpe", "units"] == 4
    assert "3 independent searches" in verdict.reading[0]


def test_strategies_without_a_common_seed_are_not_tested():
    rows = finals(random=[[0.50], [0.60]], darts=[[0.52], [0.63]])
    keep = rows["seed"] == rows["name"].map({"random": 0, "darts": 1})
    verdict = judge(rows[keep], SEARCHES, test_size=10_000, dataset="made_up")
    assert verdict.table["p_value"].isna().all()
    assert "no measure of noise" in verdict.reading[0]


def test_the_reading_says_what_the_test_set_can_resolve():
    same = {"random": [[0.9], [0.9]], "darts": [[0.9], [0.9]]}
    _, small = verdict_of(test_size=360, **same)
    assert "360 test images of made_up is 0.28 points" in small
    assert "sampling error of 1.6 points" in small  # sqrt(0.9 * 0.1 / 360)
    assert "a set as small as this" in small
    _, large = verdict_of(test_size=10_000, **same)
    assert "10,000 test images of made_up is 0.01 points" in large
    assert "a set as small as this" not in large


def test_a_final_training_that_diverged_is_named_and_left_out():
    table, reading = verdict_of(
        random=[[0.96], [0.95], [0.97]], darts=[[0.97], [None], [0.965]], base_none=[[0.9]] * 3
    )
    row = table.loc["darts"]
    assert row["test_accuracy"] == pytest.approx(0.9675)
    assert row["units"] == 2
    assert row["difference"] == pytest.approx((0.01 - 0.005) / 2)
    assert "1 final training(s) of darts diverged" in reading


OPTIONS = {"test_size": 10_000, "dataset": "made_up"}


def verdict_by(metric, rows):
    """The verdict with the made-up results as another metric's."""
    column = f"test_{metric.name}"
    renamed = rows.rename(columns={"test_accuracy": column})
    return judge(renamed, SEARCHES, **OPTIONS, column=column, metric=metric)


def test_another_tasks_share_is_compared_alike():
    rows = finals(random=[[0.50, 0.52], [0.60, 0.62]], darts=[[0.55, 0.57], [0.66, 0.68]])
    accuracy = judge(rows, SEARCHES, **OPTIONS)
    agreement = verdict_by(AGREEMENT, rows)
    pd.testing.assert_frame_equal(
        agreement.table.rename(columns={"test_agreement": "test_accuracy"}), accuracy.table
    )
    assert "an agreement of" in " ".join(agreement.reading)


LOSSES = {
    "random": [[1.50, 1.52], [1.60, 1.62], [1.70, 1.74]],
    "darts": [[1.45, 1.47], [1.54, 1.56], [1.66, 1.66]],
    "base_none": [[2.5, 2.4], [2.6, 2.5], [2.5, 2.7]],
}


def test_where_lower_is_better_the_least_is_first_and_no_share_is_spoken_of():
    verdict = verdict_by(LOSS, finals(**LOSSES))
    table = verdict.table.set_index("name")
    assert list(table.index) == ["darts", "random", "none"]
    own, chance = (np.array(LOSSES[name]).mean(1) for name in ("darts", "random"))
    assert table.loc["darts", "difference"] == pytest.approx((own - chance).mean())
    assert table.loc["darts", "p_value"] == pytest.approx(stats.ttest_rel(own, chance).pvalue)
    error = stats.t.ppf(0.975, 2) * stats.sem(own)
    assert table.loc["darts", "ci_high"] == pytest.approx(own.mean() + error)
    assert table.loc["darts", "ci_high"] > 1, "a loss is not cut off at 1"
    reading = " ".join(verdict.reading)
    assert "darts is better than random search by 0.0567 nats (p = " in reading
    assert "images" not in reading
    assert "points" not in reading


def test_errors_of_several_orders_of_magnitude_are_compared_by_their_ratios():
    """Each plant has a scale of its own, which hides a constant ratio unless logarithms are taken.

    The values are checked with numpy's and scipy's geometric means and t-test of logarithms.
    """
    scale = np.array([0.001, 0.01, 0.1])
    ratio = np.array([0.24, 0.25, 0.26])
    rows = finals(
        random=[[s, 4 * s] for s in scale],
        darts=[[r * s, 4 * r * s] for r, s in zip(ratio, scale, strict=True)],
        tpe=[[0.9 * scale[0]], [1.2 * scale[1]], [0.9 * scale[2]]],
        base_planted=[[1e-4, None], [1e-4, 1e-4], [1e-4, 1e-4]],
    )
    verdict = verdict_by(NORMALISED_ERROR, rows)
    table = verdict.table.set_index("name")
    assert list(table.index) == ["planted", "darts", "tpe", "random"]
    row = table.loc["darts"]
    own, chance = np.log(2 * ratio * scale), np.log(2 * scale)  # the mean of x and 4x is 2x
    assert row["test_normalised_error"] == pytest.approx(stats.gmean(2 * ratio * scale))
    assert row["difference"] == pytest.approx(stats.gmean(ratio))
    assert row["p_value"] == pytest.approx(stats.ttest_rel(own, chance).pvalue)
    low, high = stats.t.interval(0.95, 2, own.mean(), stats.sem(own))
    assert row[["ci_low", "ci_high"]].tolist() == pytest.approx([np.exp(low), np.exp(high)])
    raw = stats.ttest_rel(np.exp(own), np.exp(chance)).pvalue
    assert row["p_value"] < 0.01 < 0.3 < raw, "the largest plant alone would decide"
    reading = " ".join(verdict.reading)
    assert "darts is better than random search by a factor of 4" in reading
    assert "a true difference by a factor of " in reading
    assert "1 final training(s) of planted diverged" in reading


def test_an_infinite_error_is_missing():
    rows = finals(random=[[0.1], [0.2], [0.3]], darts=[[0.1], [math.inf], [0.2]])
    row = verdict_by(NORMALISED_ERROR, rows).table.set_index("name").loc["darts"]
    assert row["units"] == 2
    assert row["test_normalised_error"] == pytest.approx((0.1 * 0.2) ** 0.5)
