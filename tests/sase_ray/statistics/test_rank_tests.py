"""Rank tests and agreement, against closed forms, tables of books and brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sase_ray.statistics.paired_tests import mean_of_steps
from sase_ray.statistics.rank_tests import (
    against_control,
    kendall,
    overall,
    pareto_front,
    smallest_signed_rank_p_value,
)


def test_friedman_by_its_formula():
    blocks = pd.DataFrame(np.random.default_rng(0).normal(size=(12, 4)), columns=list("abcd"))
    ranks = blocks.rank(axis=1).sum()
    n, k = blocks.shape
    statistic = 12 / (n * k * (k + 1)) * (ranks**2).sum() - 3 * n * (k + 1)
    assert overall(blocks) == pytest.approx(stats.chi2.sf(statistic, k - 1))


def test_treatments_that_are_all_alike_are_not_told_apart():
    assert overall(pd.DataFrame({"a": [1.0, 2], "b": [1.0, 2], "c": [1.0, 2]})) == 1
    assert overall(pd.DataFrame({"a": [1.0, 2]})) == 1


def test_against_a_control_of_six_pairs_the_smallest_p_value_is_a_count_of_signs():
    blocks = pd.DataFrame({"random": np.zeros(6), "better": np.arange(1.0, 7), "same": np.zeros(6)})
    tests = against_control(blocks, "random").set_index("name")
    assert tests.loc["better", "p_value"] == pytest.approx(2 / 2**6)
    assert tests.loc["better", "p_holm"] == pytest.approx(2 * 2 / 2**6)
    assert tests.loc["same", "p_holm"] == 1
    assert smallest_signed_rank_p_value(6) == 2 / 2**6
    assert smallest_signed_rank_p_value(0) == 1


def test_tau_counts_pairs():
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, 30))
    signs = [
        np.sign((first[i] - first[j]) * (second[i] - second[j]))
        for i, j in combinations(range(30), 2)
    ]
    found = kendall(first.tolist(), second.tolist())
    assert found.tau == pytest.approx(np.mean(signs))
    assert found.low < found.tau < found.high
    assert found.pairs == 30


def test_tau_with_ties_is_scipys():
    rng = np.random.default_rng(4)
    first, second = rng.integers(0, 4, size=(2, 25))
    expected = stats.kendalltau(first, second).statistic
    assert kendall(first.tolist(), second.tolist()).tau == pytest.approx(expected)


def test_the_interval_of_tau_covers_it_about_95_times_in_100():
    rng = np.random.default_rng(1)
    rho, covered = 0.6, 0
    truth = 2 / np.pi * np.arcsin(rho)  # of a bivariate normal
    for _ in range(50):
        first, second = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 40).T
        found = kendall(first, second, resamples=200)
        covered += found.low <= truth <= found.high
    assert 43 <= covered <= 50


def test_what_cannot_be_ranked_has_no_tau():
    assert np.isnan(kendall([], []).tau)
    assert np.isnan(kendall([1, 1, 1], [1, 2, 3]).tau)
    assert kendall([1, 2, np.nan], [1, 2, 5]).pairs == 2
    few = kendall([1, 2, 3], [1, 2, 3])
    assert few.tau == 1
    assert np.isnan(few.low)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12))
def test_the_pareto_front_is_what_brute_force_finds(points):
    front = pareto_front([c for c, _ in points], [v for _, v in points])
    for (c, v), on_front in zip(points, front, strict=True):
        beaten = any((a <= c and b > v) or (a < c and b >= v) for a, b in points)
        assert on_front == (not beaten)


def test_what_is_not_finite_is_on_no_front():
    assert pareto_front([1, 2, np.nan], [np.nan, 1, 5]).tolist() == [False, True, False]


def test_the_mean_of_steps_holds_each_value_until_the_next():
    courses = [([0, 10], [1.0, 3.0]), ([0, 5], [2.0, 4.0])]
    means = [point.mean for point in mean_of_steps(courses, [0, 4.9, 5, 10, 99])]
    assert means == [1.5, 1.5, 2.5, 3.5, 3.5]


def test_tau_within_groups_compares_nothing_across_them():
    rng = np.random.default_rng(5)
    groups = np.repeat([0, 1, 2], [4, 6, 2])
    first, second = rng.normal(size=(2, 12)) + 100 * groups
    signs = [
        np.sign((first[i] - first[j]) * (second[i] - second[j]))
        for i, j in combinations(range(12), 2)
        if groups[i] == groups[j]
    ]
    found = kendall(first.tolist(), second.tolist(), groups.tolist())
    assert found.tau == pytest.approx(np.mean(signs))
    assert np.isnan(kendall([1, 2, 3], [1, 2, 3], [0, 1, 2]).tau)
    two_each = kendall([1, 2, 1, 2, 1, 2], [1, 2, 2, 1, 1, 2], [0, 0, 1, 1, 2, 2])
    assert two_each.tau == pytest.approx(1 / 3)
