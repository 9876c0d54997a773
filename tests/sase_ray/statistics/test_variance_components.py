"""Variance components and rank agreement, against textbooks and made-up data."""

import numpy as np
import pytest
from scipy import stats

from sase_ray.statistics.variance_components import (
    VarianceComponents,
    best_linear_prediction,
    covariance_components,
    genotype_correlation,
    icc_interval,
    nearest_covariance,
    rank_agreement,
    variance_components,
)
from search_spaces.errors import UserError

SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]],
    dtype=float,
)
"""Table 2 of Shrout and Fleiss 1979: six targets, four judges."""


def made_up(genotypes, seeds, sd_genotype, sd_seed, sd_residual, rng):
    return (
        0.9
        + sd_genotype * rng.standard_normal((genotypes, 1))
        + sd_seed * rng.standard_normal((1, seeds))
        + sd_residual * rng.standard_normal((genotypes, seeds))
    )


def test_the_textbook_example_gives_the_textbook_values():
    components = variance_components(SHROUT_FLEISS)
    assert components.icc() == pytest.approx(0.71, abs=0.005)
    assert components.icc(seeds=4) == pytest.approx(0.91, abs=0.005)
    assert components.icc_unpaired() == pytest.approx(0.29, abs=0.005)
    assert components.icc_unpaired(seeds=4) == pytest.approx(0.62, abs=0.005)


def test_mean_squares_agree_with_an_anova_by_statsmodels():
    import pandas as pd
    import statsmodels.api as sm
    from statsmodels.formula.api import ols

    rng = np.random.default_rng(1)
    scores = made_up(7, 5, 0.02, 0.03, 0.01, rng)
    long = pd.DataFrame(
        [(g, s, scores[g, s]) for g in range(7) for s in range(5)], columns=["g", "s", "y"]
    )
    table = sm.stats.anova_lm(ols("y ~ C(g) + C(s)", data=long).fit())
    mean_squares = table["mean_sq"]
    components = variance_components(scores)
    residual = mean_squares["Residual"]
    assert components.residual == pytest.approx(residual)
    assert components.genotype == pytest.approx((mean_squares["C(g)"] - residual) / 5)
    assert components.seed == pytest.approx((mean_squares["C(s)"] - residual) / 7)


@pytest.mark.parametrize("correlation", [-0.6, 0.0, 0.8])
@pytest.mark.parametrize("shared", [-0.9, 0.9])
def test_the_correlation_of_genotypes_is_not_that_of_their_noise(correlation, shared):
    rng = np.random.default_rng(4)
    effects = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], size=4000)
    noise = rng.multivariate_normal([0, 0], [[4, 4 * shared], [4 * shared, 4]], size=(4000, 3))
    first, second = (effects[:, None, i] + noise[:, :, i] for i in range(2))
    # 4,000 genotypes leave a standard error of about 0.04 at this noise; the raw correlation of
    # the means is off by half of `shared`.
    assert genotype_correlation(first, second) == pytest.approx(correlation, abs=0.15)
    raw = np.corrcoef(first.mean(axis=1), second.mean(axis=1))[0, 1]
    assert abs(raw - correlation) > 0.15 or correlation * shared > 0


def test_the_correlation_of_no_effect_is_not_a_number():
    flat = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # means alike, all noise
    signal = np.array([[0.0, 0.1], [1.0, 1.1], [2.0, 2.1]])
    assert np.isnan(genotype_correlation(flat, signal))
    assert genotype_correlation(signal, -signal) == pytest.approx(-1)


def test_covariance_components_have_the_variances_on_their_diagonal():
    scores = np.random.default_rng(7).normal(size=(9, 4, 3))
    effects, noise = covariance_components(scores)
    for i in range(3):
        components = variance_components(scores[:, :, i])
        assert max(0.0, effects[i, i]) == pytest.approx(components.genotype)
        assert noise[i, i] == pytest.approx(components.residual)


def test_the_nearest_covariance_keeps_variances_and_is_positive():
    estimate = np.array([[4.0, 3.0, 0.5], [3.0, 1.0, 0.2], [0.5, 0.2, -0.3]])
    nearest = nearest_covariance(estimate)
    np.testing.assert_allclose(np.diag(nearest), [4, 1, 0])
    assert np.linalg.eigvalsh(nearest).min() > -1e-12
    assert nearest[0, 1] == pytest.approx(2)  # a correlation of 1.5 becomes 1
    valid = np.array([[2.0, 0.3], [0.3, 1.0]])
    np.testing.assert_allclose(nearest_covariance(valid), valid)


def test_the_best_linear_prediction_of_one_score_shrinks_by_its_reliability():
    deviation, noise = np.array([[2.0], [-1.0]]), np.array([[[1.0]], [[0.25]]])
    predicted, error = best_linear_prediction(deviation, np.array([[3.0]]), noise)
    np.testing.assert_allclose(predicted[:, 0], [2 * 3 / 4, -1 * 3 / 3.25])
    np.testing.assert_allclose(error[:, 0, 0], [3 * (1 - 3 / 4), 3 * (1 - 3 / 3.25)])


def test_known_components_are_found_on_average():
    rng = np.random.default_rng(2)
    found = [variance_components(made_up(24, 4, 0.5, 1.0, 0.8, rng)) for _ in range(400)]
    assert np.mean([c.genotype for c in found]) == pytest.approx(0.25, rel=0.1)
    assert np.mean([c.seed for c in found]) == pytest.approx(1.0, rel=0.15)
    assert np.mean([c.residual for c in found]) == pytest.approx(0.64, rel=0.05)


def test_a_seeds_shift_of_all_genotypes_leaves_the_paired_reliability_alone():
    rng = np.random.default_rng(3)
    scores = made_up(10, 3, 1.0, 0.0, 0.5, rng)
    shifted = scores + np.array([[0.0, 5.0, -7.0]])
    before, after = variance_components(scores), variance_components(shifted)
    assert after.icc() == pytest.approx(before.icc())
    assert after.icc_unpaired() < before.icc_unpaired()


def test_a_paired_t_test_finds_the_detectable_difference_eight_times_in_ten():
    components = VarianceComponents(genotype=0.0, seed=9.0, residual=0.25)
    difference = components.detectable(seeds=6)
    rng = np.random.default_rng(4)
    shift = 3 * rng.standard_normal((3000, 6))
    first = shift + difference + 0.5 * rng.standard_normal((3000, 6))
    second = shift + 0.5 * rng.standard_normal((3000, 6))
    found = np.mean(stats.ttest_rel(first, second, axis=1).pvalue < 0.05)
    assert found == pytest.approx(0.8, abs=0.03)
    assert np.isnan(components.detectable(seeds=1))


def test_rank_agreement_is_one_without_noise_and_nought_without_signal():
    rng = np.random.default_rng(5)
    clear = rank_agreement(made_up(20, 3, 1.0, 1.0, 0.0, rng))
    assert clear.tau == pytest.approx(1.0)
    noise = rank_agreement(made_up(20, 3, 0.0, 1.0, 1.0, rng))
    assert noise.low < 0 < noise.high
    assert noise.low < noise.tau < noise.high


def test_kendalls_tau_agrees_with_counting_pairs():
    scores = np.random.default_rng(6).standard_normal((9, 2))
    signs = [
        np.sign((scores[i, 0] - scores[j, 0]) * (scores[i, 1] - scores[j, 1]))
        for i in range(9)
        for j in range(i)
    ]
    assert rank_agreement(scores).tau == pytest.approx(np.mean(signs))


@pytest.mark.parametrize("scores", [np.ones((1, 4)), np.ones((4, 1)), np.ones(4)])
def test_too_few_scores_are_refused(scores):
    with pytest.raises(UserError, match="two genotypes and two seeds"):
        variance_components(scores)


def test_a_diverged_genotype_is_refused():
    with pytest.raises(UserError, match="diverged"):
        variance_components(np.array([[1.0, 2.0], [np.inf, 1.0]]))


def test_scores_that_do_not_vary_measure_nothing():
    alike = np.array([[0.1, 0.13]] * 3)
    assert np.isnan(variance_components(alike).icc())
    assert np.isnan(icc_interval(alike)).all()
    noiseless = np.array([[0.1, 0.13], [0.2, 0.23], [0.35, 0.38]])
    assert variance_components(noiseless).icc() == 1
    assert np.isnan(icc_interval(noiseless)).all()


def test_the_interval_of_the_textbook_example():
    # McGraw and Wong 1996 and R's psych::ICC give 0.34 to 0.95 for these data, ICC(3,1).
    assert icc_interval(SHROUT_FLEISS) == pytest.approx((0.342, 0.946), abs=0.001)


def test_the_interval_covers_the_true_icc_19_times_in_20():
    rng = np.random.default_rng(5)
    true = 0.5**2 / (0.5**2 + 0.8**2)
    intervals = [icc_interval(made_up(24, 4, 0.5, 1.0, 0.8, rng)) for _ in range(1000)]
    covered = np.mean([low <= true <= high for low, high in intervals])
    assert covered == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 1000) ** 0.5)
