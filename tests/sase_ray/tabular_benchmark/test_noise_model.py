"""The noise model against scores whose effects and noise are known."""

from __future__ import annotations

import numpy as np
import pytest

from sase_ray.tabular_benchmark.noise_model import NoiseModel

GENOTYPES, SEEDS = 600, 3
EFFECTS = np.array([[1.0, 0.8], [0.8, 1.0]])
NOISE = np.array([[0.8, 0.4], [0.4, 1.2]])


def made_up(rng, slope=0.0, repeated=GENOTYPES):
    """True scores (genotype, score) and recorded ones (genotype, seed, score)."""
    true = rng.multivariate_normal([0, 0], EFFECTS, size=GENOTYPES)
    noise = rng.multivariate_normal([0, 0], NOISE, size=(GENOTYPES, SEEDS))
    scores = true[:, None] + noise * np.exp(slope / 2 * true[:, :1])[:, :, None]
    scores[repeated:, 1:] = np.nan
    return true, scores


def model_of(scores):
    return NoiseModel(scores, np.flatnonzero(np.isfinite(scores).all(axis=(1, 2))), driver=0)


def test_predictions_are_those_of_hendersons_formula_with_the_true_covariances():
    true, scores = made_up(np.random.default_rng(0))
    weights = EFFECTS @ np.linalg.inv(EFFECTS + NOISE / SEEDS)
    expected = scores.mean(axis=1) @ weights.T
    model = model_of(scores)
    error = model.predicted - expected
    error -= error.mean(axis=0)  # the seeds' means are those of the first
    assert error.std() < 0.1
    # Both scores jointly predict better than either one by its own ICC.
    residual = (true - model.predicted).std(axis=0)
    alone = np.sqrt(1 - 1 / (1 + np.diag(NOISE) / SEEDS))
    assert (residual < alone + 0.02).all()


@pytest.mark.parametrize("slope", [0.0, 0.7])
def test_noise_that_grows_with_the_effect_is_fitted(slope):
    # Noise on the driver flattens the slope a little: 0.7 is found as about 0.7 * its reliability.
    slopes = []
    for seed in range(10):
        _, scores = made_up(np.random.default_rng(seed), slope)
        model = model_of(scores)
        slopes.append(model.slopes / scores.std(axis=(0, 1)))
    assert np.mean(slopes) == pytest.approx(slope, abs=0.12)


def test_drawn_noise_has_the_covariance_of_the_model():
    _, scores = made_up(np.random.default_rng(3))
    model = model_of(scores)
    rng = np.random.default_rng(0)
    centre = model.predicted.mean(axis=0)
    drawn = np.array([model.noise(centre, rng) for _ in range(4000)])
    np.testing.assert_allclose(np.cov(drawn.T), NOISE, atol=0.15)


def test_drawn_truths_cover_the_known_truth_19_times_in_20():
    inside, spreads = [], []
    for seed in range(6):
        true, scores = made_up(np.random.default_rng(seed), 0.5, repeated=150)
        model = model_of(scores)
        rng = np.random.default_rng(seed)
        worlds = np.array([model.true_scores(rng) for _ in range(200)])
        worlds -= worlds.mean(axis=(0, 1)) - true.mean(axis=0)  # on the first seed's mean
        low, high = np.quantile(worlds, [0.025, 0.975], axis=0)
        inside.append(((low <= true) & (true <= high)).mean())
        spreads.append(worlds.std(axis=1).mean(axis=0) / true.std(axis=0))
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)
    np.testing.assert_allclose(np.mean(spreads, axis=0), 1, atol=0.1)


def test_regret_in_drawn_truths_is_right_on_average_and_0_for_the_best():
    errors, naive, best = [], [], []
    for seed in range(40):
        true, scores = made_up(np.random.default_rng(100 + seed), repeated=150)
        true, recorded = true[:, 1], scores[:, 0, 1]
        model = model_of(scores)
        rng = np.random.default_rng(seed)
        worlds = np.array([model.true_scores(rng)[:, 1] for _ in range(200)])
        answer = scores[:, 0, 0].argmin()  # chosen by the other score, as a search does
        actual = true[answer] - true.min()
        errors.append((worlds[:, answer] - worlds.min(axis=1)).mean() - actual)
        naive.append(recorded[answer] - recorded.min() - actual)
        # Which genotype is best, with a probability of 95%: the truly best is one of them.
        chance = np.bincount(worlds.argmin(axis=1), minlength=GENOTYPES) / len(worlds)
        order = np.argsort(-chance)
        credible = order[: 1 + np.searchsorted(np.cumsum(chance[order]), 0.95)]
        best.append(true.argmin() in credible)
    error = np.std(errors) / 40**0.5
    assert np.mean(errors) == pytest.approx(0, abs=3 * error)
    assert abs(np.mean(naive)) > 3 * error  # against the minimum of noisy estimates it is not
    assert np.mean(best) >= 0.85


def test_a_genotype_without_a_training_is_expected_at_the_mean():
    _, scores = made_up(np.random.default_rng(5))
    scores[7] = np.inf
    model = model_of(scores)
    others = np.delete(model.predicted, 7, axis=0).mean(axis=0)
    np.testing.assert_allclose(model.predicted[7], others, atol=0.01)


def test_scores_without_noise_are_their_own_truth():
    true, _ = made_up(np.random.default_rng(6))
    scores = np.repeat(true[:, None], SEEDS, axis=1)
    model = model_of(scores)
    np.testing.assert_allclose(model.predicted, true, atol=1e-6)
    np.testing.assert_allclose(model.true_scores(np.random.default_rng(0)), true, atol=1e-3)
    assert (model.slopes == 0).all()
