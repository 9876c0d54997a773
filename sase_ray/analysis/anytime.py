"""Curves of the incumbents of searches over their cost."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sase_ray.analysis.outcomes import metric_of
from sase_ray.results.families import is_of_trained_genotypes
from sase_ray.results.load import Run
from sase_ray.statistics.paired_tests import mean_of_steps

GRID = 60
"""Number of points of an anytime curve."""


def anytime(run: Run, against: str = "search_samples") -> pd.DataFrame:
    """Average the validation metric of the incumbents over searches, from where all have one.

    Searches that do not train genotypes one by one have no such incumbent and are left out. Where
    all strategies have the same seeds, the effect of a seed on all strategies alike is removed
    before the intervals are computed (Cousineau, "Confidence intervals in within-subject designs",
    2005). The intervals are then widened by the factor sqrt(M / (M - 1)) for M strategies, as
    removing the effect also removes that much of the variance (Morey, "Confidence intervals from
    normalized data: a correction to Cousineau", 2008). The bands therefore show the uncertainty of
    a comparison of strategies.

    Args:
        run: Run with curves.
        against: Cost: search_samples, search_seconds, or trials (begun by then).

    Returns:
        Columns `strategy`, the one named by `against`, `value`, and its 95% interval over
        searches, `low` and `high` (NaN for a single search).
    """
    value = f"incumbent_{metric_of(run)}"
    others = set(run.trials.loc[~is_of_trained_genotypes(run.trials), "strategy"])
    others |= set(run.strategies.loc[~is_of_trained_genotypes(run.strategies), "name"])
    curves = run.curves[~run.curves["strategy"].isin(others)]
    begun = curves.groupby(["strategy", "seed"], sort=False)["trial"]
    curves = curves.assign(trials=begun.transform(lambda trial: (~trial.duplicated()).cumsum()))
    curves = curves[np.isfinite(curves[value]) & np.isfinite(curves[against])]
    shift = _shift_of_seeds(curves, value)
    strategies = curves["strategy"].nunique()
    wider = 1.0 if shift is None else (strategies / (strategies - 1)) ** 0.5
    if shift is not None:
        curves = curves.assign(**{value: curves[value] - shift})
    rows = []
    for name, own in curves.groupby("strategy", sort=False):
        searches = [search.sort_values(against) for _, search in own.groupby("seed")]
        first = max(search[against].iloc[0] for search in searches)
        last = min(search[against].iloc[-1] for search in searches)
        grid = np.linspace(first, max(first, last), GRID)
        courses = [(search[against].to_numpy(), search[value].to_numpy()) for search in searches]
        for place, mean in zip(grid, mean_of_steps(courses, grid), strict=True):
            low, high = (mean.mean + wider * (end - mean.mean) for end in (mean.low, mean.high))
            rows.append((name, place, mean.mean, low, high))
    return pd.DataFrame(rows, columns=["strategy", against, "value", "low", "high"])


def _shift_of_seeds(curves: pd.DataFrame, value: str) -> pd.Series | None:
    """Return how much the last incumbents of each row's seed deviate from those of all seeds.

    None where the strategies do not share their seeds, or there is only one strategy.
    """
    last = curves.groupby(["seed", "strategy"])[value].last().unstack("strategy")
    if last.shape[1] < 2 or last.isna().any(axis=None):
        return None
    mean = last.mean(axis=1)
    return curves["seed"].map(mean - mean.mean())


POINTS = 200
"""Maximum number of points of a band's curve."""


def band(curves: pd.DataFrame, cost: str, metric: str) -> pd.DataFrame:
    """Return the mean, lowest and highest incumbent of a strategy's seeds over a cost.

    Every search keeps its incumbent until it finds a better one, and after its end; the band
    begins where all seeds have an incumbent.

    Args:
        curves: Rows of `curves.parquet` of one strategy, including a column of the cost.
        cost: Name of the cost's column.
        metric: Name of the metric's column; values that are not finite are left out.

    Returns:
        Columns mean, low and high, by the cost; at most `POINTS` rows.
    """
    finite = curves[np.isfinite(curves[metric])]
    last = finite.assign(step=finite[cost].round()).groupby(["step", "seed"])[metric].last()
    held = last.unstack("seed").ffill().dropna()
    kept = np.unique(np.linspace(0, len(held) - 1, min(POINTS, len(held))).astype(int))
    held = held.iloc[kept]
    return pd.DataFrame({"mean": held.mean(1), "low": held.min(1), "high": held.max(1)})
