"""Reliability of a proxy protocol: how well its scores rank genotypes rather than seeds.

The same genotypes are trained with several seeds. A score of genotype g with seed s is modelled as
mu + G_g + S_s + E_gs (two-way random effects, one observation per cell). A search looks for the
genotypes with the best G; S shifts all genotypes of a seed together and cancels in paired
comparisons; E is the remaining noise. Shrout and Fleiss, "Intraclass Correlations: Uses in
Assessing Rater Reliability", Psychological Bulletin 1979; McGraw and Wong, Psychological Methods
1996.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.power import TTestPower

from sase_ray.statistics.paired_tests import SIGNIFICANCE
from search_spaces.errors import UserError

Scores = NDArray[np.float64]
"""Array of scores: one row per genotype, one column per seed."""


@dataclass(frozen=True)
class VarianceComponents:
    """Variances of the two-way model, in squared units of the score; negative estimates are 0.

    Attributes:
        genotype: Variance of the genotypes' effects, their true differences.
        seed: Variance of the seeds' effects, which are the same for all genotypes.
        residual: Variance of the remaining noise, which paired comparisons see.
    """

    genotype: float
    seed: float
    residual: float

    def icc(self, seeds: int = 1) -> float:
        """Return the reliability of a ranking by scores averaged over `seeds` paired seeds.

        This is ICC(3,k) of Shrout and Fleiss: the share of the genotypes in the variance that a
        paired comparison sees; 0 is chance, 1 is no noise. NaN if nothing varies.
        """
        return _share(self.genotype, self.residual / seeds)

    def icc_unpaired(self, seeds: int = 1) -> float:
        """Return the reliability if the seeds differ between genotypes (ICC(2,k))."""
        return _share(self.genotype, (self.seed + self.residual) / seeds)

    def detectable(self, seeds: int) -> float:
        """Return the true difference of two genotypes that `seeds` pairs find 8 times in 10.

        The test is a two-sided paired t-test at 5%. The difference has the units of the score; NaN
        for one pair.
        """
        if seeds < 2:
            return float("nan")
        effect = TTestPower().solve_power(nobs=seeds, alpha=SIGNIFICANCE, power=0.8)
        return float(np.max(effect)) * float(np.sqrt(2 * self.residual))


def _share(signal: float, noise: float) -> float:
    return signal / (signal + noise) if signal + noise > 0 else float("nan")


def variance_components(scores: Scores) -> VarianceComponents:
    """Estimate the components by the mean squares of a two-way ANOVA.

    Args:
        scores: Finite scores of at least two genotypes (rows) and two seeds (columns).

    Raises:
        UserError: There are fewer, or a score is not finite.
    """
    check_scores(scores)
    genotypes, seeds = scores.shape
    by_genotype = scores.mean(axis=1, keepdims=True)
    by_seed = scores.mean(axis=0, keepdims=True)
    mean = scores.mean()
    ms_genotype = seeds * np.sum((by_genotype - mean) ** 2) / (genotypes - 1)
    ms_seed = genotypes * np.sum((by_seed - mean) ** 2) / (seeds - 1)
    rest = scores - by_genotype - by_seed + mean
    ms_residual = np.sum(rest**2) / ((genotypes - 1) * (seeds - 1))
    if ms_residual < (1e-12 * np.abs(scores).max()) ** 2:
        ms_residual = np.float64(0.0)  # only the rounding of these sums
    ms_genotype = ms_genotype if ms_genotype > (1e-12 * np.abs(scores).max()) ** 2 else 0.0
    return VarianceComponents(
        genotype=max(0.0, float(ms_genotype - ms_residual) / seeds),
        seed=max(0.0, float(ms_seed - ms_residual) / genotypes),
        residual=float(ms_residual),
    )


def residuals(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return scores (genotype, seed, ...) minus the effects of their genotypes and seeds."""
    means = scores.mean(axis=1, keepdims=True) + scores.mean(axis=0, keepdims=True)
    return scores - means + scores.mean(axis=(0, 1), keepdims=True)


def covariance_components(
    scores: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimate the covariances of several scores of the same trainings.

    The estimates are the mean products of a two-way ANOVA; `variance_components` gives their
    diagonal.

    Args:
        scores: Finite scores (genotype, seed, score) of at least two genotypes and two seeds.

    Returns:
        The covariance (score, score) of the genotypes' effects, which may have negative
        eigenvalues, and that of the noise of a training, of the same shape.
    """
    genotypes, seeds = scores.shape[:2]
    own = scores.mean(axis=1) - scores.mean(axis=(0, 1))
    rest = residuals(scores)
    noise = np.einsum("gsa,gsb->ab", rest, rest) / ((genotypes - 1) * (seeds - 1))
    return (own.T @ own) / (genotypes - 1) - noise / seeds, noise


def nearest_covariance(estimate: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a positive semidefinite matrix close to an estimated covariance.

    Negative eigenvalues of the correlations are set to 0, and the variances are kept. The variance
    and all covariances of a variable are 0 if its variance was estimated as 0 or less.
    """
    spread = np.sqrt(np.clip(np.diag(estimate), 0, None))
    scale = np.outer(spread, spread)
    correlation = np.divide(estimate, scale, out=np.zeros_like(estimate), where=scale > 0)
    values, vectors = np.linalg.eigh(correlation)
    positive = (vectors * np.clip(values, 0, None)) @ vectors.T
    size = np.sqrt(np.clip(np.diag(positive), 0, None))
    unit = np.outer(size, size)
    return scale * np.divide(positive, unit, out=np.zeros_like(positive), where=unit > 0)


def best_linear_prediction(
    deviation: NDArray[np.float64], effects: NDArray[np.float64], noise: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predict the true effects of genotypes from their observed means, several scores jointly.

    Henderson, "Best linear unbiased estimation and prediction under a selection model",
    Biometrics 1975. Under normality the prediction is the mean of the effects given the data, and
    the covariance of its error is that of the effects given the data.

    Args:
        deviation: Deviation (genotype, score) of a genotype's mean from the mean of all.
        effects: Covariance (score, score) of the genotypes' effects.
        noise: Covariance (genotype, score, score) of the noise of a genotype's mean.

    Returns:
        The predictions (genotype, score) and the covariances of their errors
        (genotype, score, score).
    """
    weights = effects @ np.linalg.pinv(effects + noise, rcond=1e-10, hermitian=True)
    return np.einsum("gab,gb->ga", weights, deviation), effects - weights @ effects


def genotype_correlation(first: Scores, second: Scores) -> float:
    """Return the correlation of the genotypes' effects on two scores of the same trainings.

    It is computed from the components of (co)variance, so that the noise of a training, which both
    scores share, does not count. NaN if a score has no genotype effect; estimates beyond 1 are
    clipped.

    Args:
        first: First score, as for `variance_components`.
        second: Second score, of the same genotypes and seeds.
    """
    check_scores(first)
    check_scores(second)
    effects, _ = covariance_components(np.stack([first, second], axis=2))
    if min(effects[0, 0], effects[1, 1]) <= 0:
        return float("nan")
    return float(np.clip(effects[0, 1] / (effects[0, 0] * effects[1, 1]) ** 0.5, -1, 1))


def on_first_scale(scores: NDArray[np.float64], repeated: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give every seed the mean and the spread that the first seed has on the repeated genotypes.

    In another seed's host all modules may do worse, and their differences may be larger; within a
    search, which has one seed, neither matters.

    Args:
        scores: Scores (genotype, seed, ...).
        repeated: Indices of the genotypes that have all seeds.
    """
    known = scores[repeated]
    mean, spread = known.mean(axis=0), known.std(axis=0)
    scale = np.divide(spread[:1], spread, out=np.ones_like(spread), where=spread > 0)
    return (scores - mean) * scale + mean[:1]


def icc_interval(scores: Scores) -> tuple[float, float]:
    """Return the 95% confidence interval of the ICC of one paired seed.

    This is the F-interval of ICC(3,1) (Shrout and Fleiss 1979, p. 424); negative bounds become 0,
    and the result is (NaN, NaN) if the residual is 0.

    Args:
        scores: Scores, as for `variance_components`.
    """
    found = variance_components(scores)
    genotypes, seeds = scores.shape
    if found.residual == 0:
        return float("nan"), float("nan")
    ms_genotype = seeds * float(np.var(scores.mean(axis=1), ddof=1))
    ratio = ms_genotype / found.residual
    freedom = genotypes - 1, (genotypes - 1) * (seeds - 1)
    low = ratio / stats.f.ppf(1 - SIGNIFICANCE / 2, *freedom)
    high = ratio * stats.f.ppf(1 - SIGNIFICANCE / 2, *reversed(freedom))
    lower, upper = ((bound - 1) / (bound + seeds - 1) for bound in (low, high))
    return max(0.0, float(lower)), max(0.0, float(upper))


@dataclass(frozen=True)
class RankAgreement:
    """Mean Kendall's tau between seeds, with a 95% bootstrap interval over genotypes."""

    tau: float
    low: float
    high: float


def rank_agreement(scores: Scores, *, resamples: int = 1000, seed: int = 0) -> RankAgreement:
    """Measure how well two seeds agree on the ranking of genotypes.

    Args:
        scores: Scores, as for `variance_components`.
        resamples: Number of bootstrap resamples of the genotypes, with replacement.
        seed: Seed of the bootstrap.

    Raises:
        UserError: As for `variance_components`.
    """
    check_scores(scores)
    rng = np.random.default_rng(seed)
    genotypes = len(scores)
    draws = [mean_tau(scores[rng.integers(genotypes, size=genotypes)]) for _ in range(resamples)]
    defined = [tau for tau in draws if not np.isnan(tau)] or [float("nan")]
    low, high = np.quantile(defined, [SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2])
    return RankAgreement(mean_tau(scores), float(low), float(high))


def mean_tau(scores: Scores) -> float:
    """Return the mean Kendall's tau-b over all pairs of seeds; NaN if no pair has one."""
    pairs = combinations(range(scores.shape[1]), 2)
    # Tau-b, as a resample repeats genotypes, and accuracies on few images have ties.
    taus = [float(stats.kendalltau(scores[:, i], scores[:, j])[0]) for i, j in pairs]
    # A seed that scores all genotypes alike ranks nothing, and its tau is not defined.
    defined = [tau for tau in taus if not np.isnan(tau)]
    return float(np.mean(defined)) if defined else float("nan")


def check_scores(scores: Scores) -> None:
    """Check that scores are finite, of at least two genotypes and two seeds.

    Raises:
        UserError: They are not.
    """
    if scores.ndim != 2 or min(scores.shape) < 2:
        raise UserError(
            f"reliability needs at least two genotypes and two seeds, got scores of shape "
            f"{scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise UserError("reliability needs finite scores: leave out the genotypes that diverged")
