"""Tests and intervals on ranks, by scipy, scikit-posthocs and statsmodels.

Blocks are frames with one row per block (a seed) and one column per treatment (a strategy); lower
is better unless stated otherwise. Demsar, "Statistical Comparisons of Classifiers over Multiple
Data Sets", JMLR 2006.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scikit_posthocs import posthoc_nemenyi_friedman
from scipy import stats

from sase_ray.statistics.paired_tests import SIGNIFICANCE, holm

FEWEST_BLOCKS = 5
"""Minimum number of blocks for the large-sample forms of Friedman's and Nemenyi's tests."""

FEWEST_SPARE = 5


def overall(blocks: pd.DataFrame) -> float:
    """Return the p-value that all treatments are alike: Friedman's test; for two, Wilcoxon's."""
    if blocks.shape[1] < 2 or (blocks.nunique(axis=1) == 1).all():
        return 1.0
    if blocks.shape[1] == 2:
        return signed_rank_p_value(*(blocks[name] for name in blocks))
    return float(stats.friedmanchisquare(*(blocks[name] for name in blocks)).pvalue)


def pairwise(blocks: pd.DataFrame) -> pd.DataFrame:
    """Return the p-values of Nemenyi's test between all pairs; for two treatments, Wilcoxon's."""
    if blocks.shape[1] < 3:
        names = list(blocks)
        p = signed_rank_p_value(*(blocks[n] for n in names)) if len(names) == 2 else 1.0
        return pd.DataFrame(np.where(np.eye(len(names)), 1.0, p), names, names)
    return posthoc_nemenyi_friedman(blocks).fillna(1.0)


def signed_rank_p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test; 1 if all pairs are equal."""
    equal = np.array_equal(np.asarray(first), np.asarray(second))
    return 1.0 if equal else float(stats.wilcoxon(first, second).pvalue)


def smallest_signed_rank_p_value(pairs: int) -> float:
    """Return the smallest two-sided p-value that Wilcoxon's test can give for a number of pairs."""
    return min(1.0, 2.0 ** (1 - pairs))


def against_control(blocks: pd.DataFrame, control: str) -> pd.DataFrame:
    """Test every treatment against one by Wilcoxon's signed-rank test, with Holm's correction.

    Returns:
        One row per treatment except the control: `name`, `p_value`, `p_holm`.
    """
    others = [name for name in blocks if name != control]
    p = [signed_rank_p_value(blocks[name], blocks[control]) for name in others]
    return pd.DataFrame({"name": others, "p_value": p, "p_holm": holm(p)})


@dataclass(frozen=True)
class Kendall:
    """Kendall's tau-b with its 95% bootstrap interval over pairs; NaN where nothing varies."""

    tau: float
    low: float
    high: float
    pairs: int


def kendall(
    first: Sequence[float],
    second: Sequence[float],
    groups: Sequence[int] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Kendall:
    """Measure how well two scores agree on the ranking of the same things.

    Pairs with a score that is not finite are left out. There is no interval if fewer than
    `FEWEST_SPARE` pairs are left beyond one per group: a few pairs that agree by chance would seem
    certain.

    Args:
        first: Score of each thing.
        second: Other score of each thing.
        groups: Group of each thing, if only things of one group may be compared.
        resamples: Number of bootstrap resamples (percentile intervals, pairs drawn with
            replacement).
        seed: Seed of the bootstrap.
    """
    labels = np.zeros(len(first)) if groups is None else np.asarray(groups, dtype=float)
    rows = np.array([first, second, labels], dtype=float).reshape(3, -1)
    rows = rows[:, np.isfinite(rows).all(axis=0)]
    pairs, nan = rows.shape[1], float("nan")
    orders = [np.sign(row[:, None] - row[None, :]) for row in rows[:2]]
    together = rows[2][:, None] == rows[2][None, :]

    def tau_of(drawn: NDArray[np.int64]) -> float:
        """Compute tau-b of the drawn things from the orders of all pairs (scipy is far slower)."""
        cells = np.ix_(drawn, drawn)
        a, b = (order[cells] * together[cells] for order in orders)
        compared = np.sqrt((a != 0).sum() * (b != 0).sum())
        return float((a * b).sum() / compared) if compared else nan

    everything = np.arange(pairs)
    tau = tau_of(everything)
    if np.isnan(tau) or pairs - len(np.unique(rows[2])) < FEWEST_SPARE:
        return Kendall(tau, nan, nan, pairs)
    draws = stats.bootstrap(
        (everything,),
        # A resample of only one thing ranks nothing: no agreement.
        lambda drawn: np.nan_to_num(tau_of(drawn)),
        n_resamples=resamples,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).bootstrap_distribution
    low, high = np.quantile(draws, [SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2])
    return Kendall(tau, float(low), float(high), pairs)


def pareto_front(cost: Sequence[float], value: Sequence[float]) -> NDArray[np.bool_]:
    """Return a mask of the points that no other point dominates (Pareto front).

    Points that are equal in both are either all on the front or none; a point that is not finite
    never is.

    Args:
        cost: Cost of each point, lower is better.
        value: Value of each point, higher is better.
    """
    x, y = np.asarray(cost, dtype=float), np.asarray(value, dtype=float)
    cheaper = x[None, :] <= x[:, None]
    better = y[None, :] >= y[:, None]
    strictly = (x[None, :] < x[:, None]) | (y[None, :] > y[:, None])
    beaten = (cheaper & better & strictly).any(axis=1)
    return ~beaten & np.isfinite(x) & np.isfinite(y)
