"""How far a proxy protocol ranks genotypes, and not seeds.

The same genotypes are trained with several seeds. A score of genotype g with seed s is taken as
mu + G_g + S_s + E_gs (two-way random effects, one observation a cell). G is what a search is
after; S shifts all genotypes of a seed together and cancels in paired comparisons; E is the noise
that is left. Shrout and Fleiss, "Intraclass Correlations: Uses in Assessing Rater Reliability",
Psychological Bulletin 1979; McGraw and Wong, Psychological Methods 1996.
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
"""Scores of genotypes (rows) with seeds (columns)."""


@dataclass(frozen=True)
class VarianceComponents:
    """Variances of the two-way model, in squared units of the score; negative estimates are 0.

    Attributes:
        genotype: of the genotypes' true differences.
        seed: of what a seed does to all genotypes alike.
        residual: of what is left, the noise of a paired comparison.
    """

    genotype: float
    seed: float
    residual: float

    def icc(self, seeds: int = 1) -> float:
        """Return the reliability of a ranking by scores averaged over `seeds` paired seeds.

        ICC(3,k) of Shrout and Fleiss: the share of the genotypes in the variance that a paired
        comparison sees; 0 is chance, 1 is no noise. NaN where nothing varies.
        """
        return _share(self.genotype, self.residual / seeds)

    def icc_unpaired(self, seeds: int = 1) -> float:
        """Return the same for scores whose seeds differ between genotypes (ICC(2,k))."""
        return _share(self.genotype, (self.seed + self.residual) / seeds)

    def detectable(self, seeds: int) -> float:
        """Return the true difference of two genotypes that `seeds` pairs find 8 times in 10.

        By a two-sided paired t-test at 5%; in the units of the score; NaN for one pair.
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
        scores: finite, at least two genotypes (rows) and two seeds (columns).

    Raises:
        UserError: there are fewer, or a score is not finite.
    """
    _check(scores)
    genotypes, seeds = scores.shape
    by_genotype = scores.mean(axis=1, keepdims=True)
    by_seed = scores.mean(axis=0, keepdims=True)
    mean = scores.mean()
    ms_genotype = seeds * np.sum((by_genotype - mean) ** 2) / (genotypes - 1)
    ms_seed = genotypes * np.sum((by_seed - mean) ** 2) / (seeds - 1)
    rest = scores - by_genotype - by_seed + mean
    ms_residual = np.sum(rest**2) / ((genotypes - 1) * (seeds - 1))
    if ms_residual < (1e-12 * np.abs(scores).max()) ** 2:
        ms_residual = np.float64(0.0)  # nothing but the rounding of these sums
    ms_genotype = ms_genotype if ms_genotype > (1e-12 * np.abs(scores).max()) ** 2 else 0.0
    return VarianceComponents(
        genotype=max(0.0, float(ms_genotype - ms_residual) / seeds),
        seed=max(0.0, float(ms_seed - ms_residual) / genotypes),
        residual=float(ms_residual),
    )


def genotype_correlation(first: Scores, second: Scores) -> float:
    """Return the correlation of the genotypes' effects on two scores of the same trainings.

    Of the components of (co)variance, so that the noise of a training, which both scores share,
    does not count. NaN where a score has no genotype effect; estimates beyond 1 are cut off.

    Args:
        first: as for `variance_components`.
        second: the other score, of the same genotypes and seeds.
    """

    def component(a: Scores, b: Scores) -> float:
        genotypes, seeds = a.shape
        own = [s.mean(axis=1) - s.mean() for s in (a, b)]
        rest = [
            s - s.mean(axis=1, keepdims=True) - s.mean(axis=0, keepdims=True) + s.mean()
            for s in (a, b)
        ]
        between = seeds * np.sum(own[0] * own[1]) / (genotypes - 1)
        within = np.sum(rest[0] * rest[1]) / ((genotypes - 1) * (seeds - 1))
        return float(between - within) / seeds

    _check(first)
    _check(second)
    variances = component(first, first) * component(second, second)
    if component(first, first) <= 0 or component(second, second) <= 0:
        return float("nan")
    return float(np.clip(component(first, second) / variances**0.5, -1, 1))


def on_first_scale(scores: NDArray[np.float64], repeated: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give every seed the mean and the spread that the first has on the repeated genotypes.

    In another seed's host all modules may do worse, and their differences may be larger; within a
    search, which has one seed, neither matters.

    Args:
        scores: (genotype, seed, ...).
        repeated: the genotypes that have all seeds.
    """
    known = scores[repeated]
    mean, spread = known.mean(axis=0), known.std(axis=0)
    scale = np.divide(spread[:1], spread, out=np.ones_like(spread), where=spread > 0)
    return (scores - mean) * scale + mean[:1]


def without_noise(scores: NDArray[np.float64], repeated: NDArray[np.int64]) -> NDArray[np.float64]:
    """Estimate every genotype's true score so that the estimates spread as the truth does.

    A mean over n seeds has the variance G + E/n, where the truth has G; drawn in towards the mean
    of all by sqrt(G / (G + E/n)), it has G, too.

    Args:
        scores: (genotype, seed) on one scale, NaN or infinite where there is none.
        repeated: the genotypes that have all seeds, from which G and E come.
    """
    known = scores[repeated]
    parts = variance_components(known)
    usable = np.where(np.isfinite(scores), scores, np.nan)
    count = np.isfinite(usable).sum(axis=1)
    mean = np.nansum(usable, axis=1) / np.maximum(count, 1)
    mean[count == 0] = np.nan
    share = np.array([parts.icc(max(1, int(n))) for n in count])
    centre = np.nanmean(mean)
    return centre + np.nan_to_num(share) ** 0.5 * (mean - centre)


def icc_interval(scores: Scores) -> tuple[float, float]:
    """Return the 95% confidence interval of the ICC of one paired seed.

    The F-interval of ICC(3,1) (Shrout and Fleiss 1979, p. 424); 0 is taken for negative bounds,
    and (NaN, NaN) returned where the residual is 0.

    Args:
        scores: as for `variance_components`.
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
    """Measure how far two seeds rank the genotypes alike.

    Args:
        scores: as for `variance_components`.
        resamples: of the bootstrap, each drawing the genotypes anew with replacement.
        seed: of the bootstrap.

    Raises:
        UserError: as `variance_components`.
    """
    _check(scores)
    rng = np.random.default_rng(seed)
    genotypes = len(scores)
    draws = [_mean_tau(scores[rng.integers(genotypes, size=genotypes)]) for _ in range(resamples)]
    defined = [tau for tau in draws if not np.isnan(tau)] or [float("nan")]
    low, high = np.quantile(defined, [SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2])
    return RankAgreement(_mean_tau(scores), float(low), float(high))


def _mean_tau(scores: Scores) -> float:
    pairs = combinations(range(scores.shape[1]), 2)
    # Tau-b: a resample repeats genotypes, and an accuracy on few images has ties.
    taus = [float(stats.kendalltau(scores[:, i], scores[:, j])[0]) for i, j in pairs]
    # Where a seed scores all alike it ranks nothing, and its tau is not defined.
    defined = [tau for tau in taus if not np.isnan(tau)]
    return float(np.mean(defined)) if defined else float("nan")


def _check(scores: Scores) -> None:
    if scores.ndim != 2 or min(scores.shape) < 2:
        raise UserError(
            f"reliability needs at least two genotypes and two seeds, got scores of shape "
            f"{scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise UserError("reliability needs finite scores: leave out the genotypes that diverged")
