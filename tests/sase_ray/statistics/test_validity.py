"""Validity against known truth, and against numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sase_ray.statistics.validity import validity
from search_spaces.errors import UserError


def drawn(correlation, noise, genotypes, seeds, rng):
    """Draw scores and results whose true effects have a correlation, each with its own noise."""
    covariance = [[1, correlation], [correlation, 1]]
    effects = rng.multivariate_normal([0, 0], covariance, size=genotypes)
    return tuple(
        effects[:, [i]] + noise * rng.standard_normal((genotypes, seeds)) for i in range(2)
    )


def test_by_hand():
    proxy = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0]])
    final = np.array([[1.0, 1.0], [3.0, 3.0], [2.0, 2.0], [4.0, 4.0]])
    found = validity(proxy, final, resamples=50)
    assert found.tau == pytest.approx(4 / 6)  # one of six pairs is turned
    assert found.kept == pytest.approx(1)
    assert found.true_tau == pytest.approx(2 / np.pi * np.arcsin(0.8))  # Pearson's r is 0.8
    second = validity(proxy[[1, 0, 2, 3]], final, resamples=50)
    # The choice is the third best: 3 where the mean is 2.5 and the best is 1.
    assert second.kept == pytest.approx((2.5 - 3) / 1.5)


@pytest.mark.parametrize("correlation", [-0.6, 0.0, 0.5, 0.9])
def test_noise_is_taken_out(correlation):
    expected = 2 / np.pi * np.arcsin(correlation)
    rng = np.random.default_rng(3)
    found = [validity(*drawn(correlation, 1.0, 60, 3, rng), resamples=2) for _ in range(100)]
    true = np.mean([f.true_tau for f in found])
    assert true == pytest.approx(expected, abs=0.04)
    if correlation:
        assert abs(np.mean([f.tau for f in found])) < abs(expected) - 0.05


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(5)
    expected = 2 / np.pi * np.arcsin(0.6)
    runs = [validity(*drawn(0.6, 0.5, 30, 2, rng), resamples=100) for _ in range(60)]
    held = np.mean([f.true_tau_low <= expected <= f.true_tau_high for f in runs])
    assert held >= 0.85  # the percentile bootstrap of 30 genotypes is a little narrow
    assert np.mean([f.true_tau_high - f.true_tau_low for f in runs]) < 0.6


def test_a_perfect_proxy_keeps_all_and_a_random_one_nothing():
    rng = np.random.default_rng(8)
    kept = {
        correlation: np.mean(
            [validity(*drawn(correlation, 0.4, 24, 2, rng), resamples=2).kept for _ in range(150)]
        )
        for correlation in (0.0, 1.0)
    }
    assert kept[0.0] == pytest.approx(0, abs=0.1)
    assert 0.8 < kept[1.0] < 1.1


def test_without_effects_there_is_no_validity():
    rng = np.random.default_rng(1)
    same = np.repeat(rng.standard_normal((1, 3)), 6, axis=0)
    found = validity(rng.standard_normal((6, 3)), same, resamples=20)
    assert np.isnan(found.true_tau)
    assert np.isnan(found.kept)
    assert np.isnan(found.tau)


def test_mistakes_are_named():
    good = np.arange(6.0).reshape(3, 2)
    with pytest.raises(ValueError, match="3 genotypes have scores, and 2 final results"):
        validity(good, good[:2])
    with pytest.raises(UserError, match="two genotypes and two seeds"):
        validity(good, good[:, :1])
    with pytest.raises(UserError, match="finite"):
        validity(good, good * np.inf)
