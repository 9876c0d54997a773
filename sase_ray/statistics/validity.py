"""Validity of a score: how well it ranks what is wanted, here the result of a final training.

Reliability asks whether a score ranks the same twice, validity whether it ranks as the final
protocol does. Both scores are noisy, which lowers every observed agreement: the correlation of the
true effects is estimated from components of (co)variance (Spearman, "The Proof and Measurement of
Association between Two Things", American Journal of Psychology 1904), and turned into Kendall's
tau as for normal effects, tau = 2/pi * arcsin(r) (Greiner 1909; Kruskal, "Ordinal Measures of
Association", JASA 1958, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sase_ray.statistics.paired_tests import SIGNIFICANCE
from sase_ray.statistics.variance_components import Scores, check_scores, variance_components


@dataclass(frozen=True)
class Validity:
    """Agreement of a score with a final result, each with a 95% bootstrap interval.

    Attributes:
        tau: Mean Kendall's tau-b of one trial's scores with the mean final results; a score that
            ranks in the opposite direction is negative.
        true_tau: Tau of the true effects, with the noise of both taken out. NaN if one of the two
            shows no genotype effect.
        kept: Share of the advantage of the best genotype over the mean that the first choice of a
            trial's scores keeps: 1 is the best, 0 is a random choice. Its denominator is the
            largest of the final effects shrunken towards their mean, not the luckiest result. NaN
            if the final results show no genotype effect.
    """

    tau: float
    tau_low: float
    tau_high: float
    true_tau: float
    true_tau_low: float
    true_tau_high: float
    kept: float
    kept_low: float
    kept_high: float


def validity(proxy: Scores, final: Scores, *, resamples: int = 1000, seed: int = 0) -> Validity:
    """Measure how well a proxy's scores rank final results. Lower is better in both.

    The noise of the two must be independent: final trainings with seeds that no trial had.
    Intervals are of a bootstrap of the genotypes, and of the seeds of both.

    Args:
        proxy: Scores (genotype, seed) of trials.
        final: Results (genotype, seed) of the same genotypes' final trainings.
        resamples: Number of resamples, with replacement.
        seed: Seed of the bootstrap.

    Raises:
        UserError: As for `variance_components`, of each.
        ValueError: The genotypes are not the same number.
    """
    check_scores(proxy)
    check_scores(final)
    if len(proxy) != len(final):
        raise ValueError(f"{len(proxy)} genotypes have scores, and {len(final)} final results")
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        rows = rng.integers(len(proxy), size=len(proxy))
        seeds = (rng.integers(n, size=n) for n in (proxy.shape[1], final.shape[1]))
        p, f = (scores[rows][:, s] for scores, s in zip((proxy, final), seeds, strict=True))
        # Components of variance need distinct seeds: of repeated ones the noise would vanish.
        weight, true_tau = _weight(final[rows]), _true_tau(proxy[rows], final[rows])
        draws.append((*_observed(p, f, weight), true_tau))
    (tau, kept), true_tau = _observed(proxy, final, _weight(final)), _true_tau(proxy, final)
    of_tau, of_kept, of_true_tau = (_interval(column) for column in np.array(draws).T)
    return Validity(tau, *of_tau, true_tau, *of_true_tau, kept, *of_kept)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2])
    return float(low), float(high)


def _weight(final: Scores) -> float:
    """Return the reliability of the mean results, by which they are shrunken to the effects."""
    return variance_components(final).icc(final.shape[1])


def _observed(proxy: Scores, final: Scores, weight: float) -> tuple[float, float]:
    """Return the mean tau of one trial with the mean result, and what its choice keeps."""
    result = final.mean(axis=1)
    taus = [float(stats.kendalltau(column, result)[0]) for column in proxy.T]
    defined = [tau for tau in taus if not np.isnan(tau)]
    best = weight * (result.mean() - result.min())
    chosen = result[proxy.argmin(axis=0)].mean()
    kept = (result.mean() - chosen) / best if best > 0 else float("nan")
    return float(np.mean(defined)) if defined else float("nan"), float(kept)


def _true_tau(proxy: Scores, final: Scores) -> float:
    spread = [variance_components(scores).genotype for scores in (proxy, final)]
    if min(spread) <= 0:
        return float("nan")
    covariance = np.cov(proxy.mean(axis=1), final.mean(axis=1))[0, 1]
    correlation = float(np.clip(covariance / np.sqrt(spread[0] * spread[1]), -1, 1))
    return float(2 / np.pi * np.arcsin(correlation))
