"""The statistics of a comparison, by scipy and statsmodels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

ALPHA = 0.05


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% confidence interval (Student's t); NaN bounds from one value."""

    mean: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """Estimate the mean of independent values."""
    sample = np.asarray(values, dtype=float)
    mean = float(sample.mean())
    if len(sample) < 2:
        return Estimate(mean, float("nan"), float("nan"))
    error = float(stats.sem(sample))
    if error == 0:
        return Estimate(mean, mean, mean)
    low, high = stats.t.interval(1 - ALPHA, len(sample) - 1, loc=mean, scale=error)
    return Estimate(mean, float(low), float(high))


def paired_p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p-value of a paired t-test; NaN from fewer than two pairs.

    Pairs that are all equal give 1, as there is nothing to tell apart.
    """
    difference = np.subtract(first, second)
    if len(difference) < 2:
        return float("nan")
    if np.allclose(difference, 0):
        return 1.0
    if np.ptp(difference) == 0:
        return 0.0
    return float(stats.ttest_rel(first, second).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979); NaN stays NaN and is not counted."""
    known = [i for i, p in enumerate(p_values) if not np.isnan(p)]
    corrected = [float("nan")] * len(p_values)
    if known:
        adjusted = multipletests([p_values[i] for i in known], alpha=ALPHA, method="holm")[1]
        for i, p in zip(known, adjusted, strict=True):
            corrected[i] = float(p)
    return corrected


def detectable_difference(differences: Sequence[Sequence[float]], tests: int) -> float:
    """Return the smallest true difference that the paired test would find 8 times in 10.

    Args:
        differences: for each comparison its paired differences, of equal number.
        tests: number of tests that share the 5% (Bonferroni, a bound for Holm).

    Returns:
        In the units of the differences; NaN from fewer than two pairs.
    """
    pairs = len(differences[0]) if differences else 0
    if pairs < 2:
        return float("nan")
    variance = float(np.mean([np.var(d, ddof=1) for d in differences]))
    effect = TTestPower().solve_power(nobs=pairs, alpha=ALPHA / max(1, tests), power=0.8)
    return float(np.max(effect)) * variance**0.5
