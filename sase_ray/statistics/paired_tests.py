"""Statistics of paired comparisons, by scipy and statsmodels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests

SIGNIFICANCE = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% confidence interval (Student's t); the bounds are NaN for one value."""

    mean: float
    low: float
    high: float


def estimate(values: Sequence[float], resolution: float = 0.0) -> Estimate:
    """Estimate the mean of independent values, which are multiples of `resolution` if not 0."""
    sample = np.asarray(values, dtype=float)
    mean = float(sample.mean())
    if len(sample) < 2:
        return Estimate(mean, float("nan"), float("nan"))
    error = _deviation(sample, resolution**2 / 12) / len(sample) ** 0.5
    if error == 0:
        return Estimate(mean, mean, mean)
    low, high = stats.t.interval(1 - SIGNIFICANCE, len(sample) - 1, loc=mean, scale=error)
    return Estimate(mean, float(low), float(high))


def mean_of_steps(
    courses: Sequence[tuple[ArrayLike, ArrayLike]], grid: ArrayLike
) -> list[Estimate]:
    """Estimate the mean of step functions at the points of a grid.

    Args:
        courses: Places where the value of a step function changes (increasing), and its values
            from there on.
        grid: Points, none before the first change of any function.
    """
    steps = [
        np.asarray(values, dtype=float)[np.searchsorted(places, grid, side="right") - 1]
        for places, values in courses
    ]
    return [estimate(values.tolist()) for values in np.transpose(steps)]


def paired_p_value(
    first: Sequence[float], second: Sequence[float], resolution: float = 0.0
) -> float:
    """Return the two-sided p-value of a paired t-test; NaN for fewer than two pairs.

    Pairs that are all equal give 1, as there is no difference. An accuracy is a multiple of one
    test image: a few differences of one image each are equal because of rounding, not because
    there is no noise. The t-test would treat them as certain, so their variance counts as no
    smaller than that of the rounding.

    Args:
        first: First value of each pair.
        second: Second value of each pair.
        resolution: Number that all values are multiples of; 0 for a continuous measurement.
    """
    difference = np.subtract(first, second)
    if len(difference) < 2:
        return float("nan")
    if np.allclose(difference, 0):
        return 1.0
    deviation = _deviation(difference, resolution**2 / 6)
    if deviation == 0:
        return 0.0
    statistic = float(difference.mean()) / deviation * len(difference) ** 0.5
    return float(2 * stats.t.sf(abs(statistic), len(difference) - 1))


def _deviation(sample: np.ndarray, rounding: float) -> float:
    """Return the standard deviation, at least that of the rounding errors."""
    return float(max(np.var(sample, ddof=1), rounding) ** 0.5)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979); NaN stays NaN and is not counted."""
    known = [i for i, p in enumerate(p_values) if not np.isnan(p)]
    corrected = [float("nan")] * len(p_values)
    if known:
        adjusted = multipletests([p_values[i] for i in known], alpha=SIGNIFICANCE, method="holm")[1]
        for i, p in zip(known, adjusted, strict=True):
            corrected[i] = float(p)
    return corrected


def detectable_difference(
    differences: Sequence[Sequence[float]], tests: int, resolution: float = 0.0
) -> float:
    """Return the smallest true difference that the paired test would find 8 times in 10.

    Args:
        differences: Paired differences of each comparison; comparisons of fewer than two pairs are
            left out, and the smallest number of pairs of the others counts.
        tests: Number of tests that share the 5% (Bonferroni, a bound for Holm).
        resolution: Resolution of the values, as for `paired_p_value`.

    Returns:
        The difference, in the units of the differences; NaN if no comparison has two pairs.
    """
    known = [np.asarray(d, dtype=float) for d in differences if len(d) >= 2]
    if not known:
        return float("nan")
    pairs = min(len(d) for d in known)
    variance = float(np.mean([_deviation(d, resolution**2 / 6) ** 2 for d in known]))
    return _detectable_effect(pairs, SIGNIFICANCE / max(1, tests)) * variance**0.5


def _detectable_effect(pairs: int, alpha: float) -> float:
    """Return the effect (mean over standard deviation) that a two-sided t-test finds at `POWER`."""
    freedom = pairs - 1
    critical = stats.t.isf(alpha / 2, freedom)
    # Power is averaged over the sample's deviation, as the noncentral t of scipy and statsmodels
    # does not converge for the few pairs that are usual here.
    deviation = (stats.chi2.ppf((np.arange(4000) + 0.5) / 4000, freedom) / freedom) ** 0.5

    def missing_power(shift: float) -> float:
        found = stats.norm.sf(critical * deviation - shift)
        found += stats.norm.cdf(-critical * deviation - shift)
        return float(found.mean()) - POWER

    return float(optimize.brentq(missing_power, 0, 10 * critical)) / pairs**0.5
