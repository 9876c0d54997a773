"""The statistics against formulas written out, textbook numbers and simulation."""

from __future__ import annotations

import gc
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sase_ray.analysis.verdict import judge
from sase_ray.statistics.paired_tests import detectable_difference, estimate, holm, paired_p_value


def test_the_interval_of_a_textbook_sample():
    # Mean 5, sample standard deviation 2.1381, t(0.975, 7) = 2.3646: 5 -+ 1.7875.
    result = estimate([2, 4, 4, 4, 5, 5, 7, 9])
    assert result.mean == 5
    assert result.low == pytest.approx(5 - 2.364624 * 2.138090 / math.sqrt(8), abs=1e-5)
    assert result.high == pytest.approx(6.787478, abs=1e-5)


def test_the_interval_covers_the_mean_95_times_in_100():
    rng = np.random.default_rng(0)
    intervals = [estimate(sample) for sample in rng.normal(3, 2, (2000, 4)).tolist()]
    covered = np.mean([i.low <= 3 <= i.high for i in intervals])
    assert covered == pytest.approx(0.95, abs=0.02)


def test_one_value_has_no_interval():
    result = estimate([0.5])
    assert result.mean == 0.5
    assert math.isnan(result.low)
    assert math.isnan(result.high)


def test_equal_accuracies_have_an_interval_of_their_rounding():
    assert estimate([0.9, 0.9, 0.9]).low == pytest.approx(0.9)
    rounded = estimate([0.9, 0.9, 0.9], resolution=0.01)
    half = 4.302653 * 0.01 / math.sqrt(12) / math.sqrt(3)
    assert rounded.high == pytest.approx(0.9 + half, abs=1e-8)


def test_a_paired_test_of_a_textbook_sample():
    # Gosset's sleep data (1908): t = 4.0621 with 9 degrees of freedom, p = 0.002833.
    first = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    second = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    assert paired_p_value(first, second) == pytest.approx(0.002833, abs=1e-6)
    assert paired_p_value(second, first) == paired_p_value(first, second)


def test_the_paired_test_equals_scipys_where_rounding_is_small():
    rng = np.random.default_rng(1)
    for pairs in (2, 3, 5, 20):
        first, second = rng.normal(size=(2, pairs))
        expected = stats.ttest_rel(first, second).pvalue
        assert paired_p_value(first, second) == pytest.approx(expected)
        assert paired_p_value(first, second, resolution=1e-6) == pytest.approx(expected)


def test_equal_pairs_give_one_and_too_few_give_no_p_value():
    assert paired_p_value([0.5, 0.7], [0.5, 0.7]) == 1
    assert paired_p_value([0.5, 0.7], [0.5, 0.7], resolution=0.01) == 1
    assert math.isnan(paired_p_value([0.5], [0.7]))
    assert math.isnan(paired_p_value([], []))


def test_the_same_single_image_three_times_is_no_certainty():
    image = 1 / 360
    p = paired_p_value([0.9 + image] * 3, [0.9] * 3, resolution=image)
    # One image over a deviation of sqrt(1/6) image: t = sqrt(18) with 2 degrees of freedom, and
    # F(t) = 1/2 + t / (2 sqrt(2 + t^2)).
    assert p == pytest.approx(1 - math.sqrt(18 / 20), abs=1e-9)
    assert p > 0.05
    assert paired_p_value([0.9 + 10 * image] * 3, [0.9] * 3, resolution=image) < 0.01


def test_holm_by_hand():
    # Sorted: 0.005 * 4, then 0.01 * 3 = 0.03, then 0.03 * 2 = 0.06, then 0.04, raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


def test_holm_does_not_count_what_could_not_be_tested():
    corrected = holm([0.01, float("nan"), 0.04])
    assert corrected[0] == pytest.approx(0.02)
    assert math.isnan(corrected[1])
    assert corrected[2] == pytest.approx(0.04)
    assert all(math.isnan(p) for p in holm([float("nan")]))


@pytest.mark.parametrize(("pairs", "tests"), [(2, 1), (2, 3), (3, 1), (3, 5), (6, 2), (30, 5)])
def test_at_the_detectable_difference_the_paired_test_finds_it_8_times_in_10(pairs, tests):
    rng = np.random.default_rng(pairs + 100 * tests)
    deviation = 0.37
    # A sample scaled to have exactly this deviation.
    sample = np.arange(pairs, dtype=float)
    sample *= deviation / sample.std(ddof=1)
    smallest = detectable_difference([sample.tolist()], tests)
    differences = rng.normal(smallest, deviation, (2000, pairs))
    zeros = [0.0] * pairs
    found = [paired_p_value(d, zeros) < 0.05 / tests for d in differences.tolist()]
    assert np.mean(found) == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 2000))


def test_the_detectable_difference_of_many_pairs_is_the_textbooks():
    # For large n: (z(0.975) + z(0.8)) / sqrt(n) = 2.8016 / sqrt(n) deviations.
    sample = np.random.default_rng(2).normal(size=2000)
    expected = 2.8016 * sample.std(ddof=1) / math.sqrt(2000)
    assert detectable_difference([sample.tolist()], 1) == pytest.approx(expected, rel=1e-3)


def test_the_detectable_difference_pools_and_takes_the_fewest_pairs():
    one, two = [0.0, 1.0, 2.0], [0.0, 3.0, 6.0]  # variances 1 and 9
    pooled = detectable_difference([one, two], 1)
    assert pooled == pytest.approx(detectable_difference([one], 1) * math.sqrt(5))
    assert detectable_difference([one, [*one, 1.0]], 1) > detectable_difference([[*one, 1.0]], 1)
    assert detectable_difference([one, [5.0]], 1) == detectable_difference([one], 1)
    assert math.isnan(detectable_difference([], 1))
    assert math.isnan(detectable_difference([[1.0]], 1))
    assert detectable_difference([[0.0] * 3], 1, resolution=0.01) > 0.01


def made_up(accuracy, searches):
    """Finals of strategies random, s1, ... with the accuracies (strategy, seed)."""
    rows = [
        {
            "name": "random" if i == 0 else f"s{i}",
            "family": "black-box",
            "seed": seed,
            "final_seed": seed,
            "module": "m",
            "test_accuracy": value,
            "parameters": 1,
            "macs": 1,
            "latency_ms": 1.0,
            "diverged": False,
        }
        for i, own in enumerate(accuracy)
        for seed, value in enumerate(own)
    ]
    return judge(pd.DataFrame(rows), searches, test_size=360, dataset="digits")


@pytest.fixture
def no_searches():
    # statsmodels collects garbage in each correction; frozen objects are not looked through.
    gc.collect()
    gc.freeze()
    yield pd.DataFrame(columns=["strategy", "seed", "samples", "seconds", "trials"])
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "images"), [(2, 0.5), (3, 0.5), (4, 2.0), (4, 8.0)])
def test_without_a_difference_at_most_5_comparisons_in_100_find_one(seeds, images, no_searches):
    rng = np.random.default_rng(int(10 * images) + seeds)
    false = 0
    comparisons = 200
    for _ in range(comparisons):
        # A shared effect of the seed, as in real pairs, and accuracies of whole images.
        correct = 320 + rng.normal(0, images, seeds) + rng.normal(0, images, (5, seeds))
        table = made_up((correct.round() / 360).tolist(), no_searches).table
        false += bool(table["significant"].any())
    assert false / comparisons <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / comparisons)


def test_a_large_difference_is_found_and_only_where_it_is(no_searches):
    rng = np.random.default_rng(3)
    found = others = 0
    for _ in range(60):
        correct = 280 + rng.normal(0, 2, 4) + rng.normal(0, 1.5, (5, 4))
        correct[2] += 40
        verdict = made_up((correct.round() / 360).tolist(), no_searches)
        significant = set(verdict.table[verdict.table["significant"]]["name"])
        found += "s2" in significant
        others += bool(significant - {"s2"})
        assert verdict.table["name"].iloc[0] == "s2"
    assert found >= 57
    assert others <= 8
