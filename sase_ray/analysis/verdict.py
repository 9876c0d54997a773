"""Table of a comparison: the result of each strategy, and whether it differs from random search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sase_ray.config import RANDOM_SEARCH
from sase_ray.statistics.paired_tests import (
    SIGNIFICANCE,
    detectable_difference,
    estimate,
    holm,
    paired_p_value,
)
from trainables.metrics import ACCURACY, Metric

SMALL = 1000
"""Number of test images below which their share cannot tell which of two good modules is better."""


@dataclass(frozen=True)
class Verdict:
    """Table of a comparison, and what can be concluded from it.

    Attributes:
        table: One row per strategy and per baseline, best mean of the final metric first.
        reading: Sentences, the most important first.
        metric: Metric by which final trainings are compared.
    """

    table: pd.DataFrame
    reading: tuple[str, ...]
    metric: Metric = ACCURACY


@dataclass(frozen=True)
class _Results:
    """Results by name and unit of replication, on the scale on which the metric is compared.

    Attributes:
        values: One row per name, one column per unit; NaN where it has none.
        column: Name of the metric in the tables.
        metric: Its declaration.
        resolution: Number that all values are multiples of; 0 for a continuous metric.
    """

    values: pd.DataFrame
    column: str
    metric: Metric
    resolution: float

    def pairs(self, name: str) -> pd.DataFrame:
        """Return a strategy's results and those of random search, for units that have both."""
        return self.values.loc[[name, RANDOM_SEARCH]].dropna(axis="columns")


def judge(
    finals: pd.DataFrame,
    searches: pd.DataFrame,
    *,
    test_size: int,
    dataset: str,
    column: str = "test_accuracy",
    metric: Metric = ACCURACY,
) -> Verdict:
    """Compare strategies by their final trainings.

    The unit of replication is the search: the final trainings that belong to one search seed are
    averaged, and strategies are paired by seed. With only one search seed the final trainings are
    the units, and the reading notes that they hold for these genotypes only. A search or training
    that failed is missing: its strategy is judged by the others.

    Where a metric differs by ratios, its logarithms are averaged and tested: means are geometric,
    and a difference is a ratio.

    Args:
        finals: One row per final training: `name`, `family`, `seed` of the search, `final_seed`,
            `module`, `diverged`, `test_accuracy`, `parameters`, `macs`, `latency_ms`.
        searches: One row per search: `strategy`, `seed`, `samples`, `seconds`, `trials`,
            `peak_memory_mib`.
        test_size: Number of test images.
        dataset: Name of the data set.
        column: Column of `finals` that is compared.
        metric: Declaration of the metric in that column.
    """
    # A training that diverged has no result: the reading names it, and its pair is left out.
    diverged = finals[finals["diverged"]]
    compared = pd.Series(metric.compared(finals[column]), finals.index)
    compared = compared.where(~finals["diverged"] & np.isfinite(compared))
    by_search = finals["seed"].nunique() > 1
    units = "seed" if by_search else "final_seed"
    values = finals.assign(compared=compared).groupby(["name", units])["compared"].mean()
    results = _Results(
        values.unstack(units), column, metric, 1 / test_size if metric.share else 0.0
    )
    rows = [_row(name, results, finals, searches) for name in results.values.index]
    table = pd.DataFrame(rows).sort_values(
        column, ascending=metric.direction == "min", kind="stable"
    )
    table = _add_tests(table, results).reset_index(drop=True)
    reading = _reading(table, results, by_search, test_size, dataset)
    reading += [
        f"{len(rows)} final training(s) of {name} diverged and are left out of its mean."
        for name, rows in diverged.groupby("name")
    ]
    return Verdict(table, tuple(reading), metric)


def _row(
    name: str, results: _Results, finals: pd.DataFrame, searches: pd.DataFrame
) -> dict[str, Any]:
    own = finals[finals["name"] == name]
    search = searches[searches["strategy"] == name] if len(searches) else searches
    values = results.values.loc[name].dropna()
    result = estimate(values.tolist(), results.resolution)
    mean, low, high = map(results.metric.restored, (result.mean, result.low, result.high))
    if results.metric.share and len(values) > 1:
        low, high = max(0.0, low), min(1.0, high)
    return {
        "name": name,
        "family": own["family"].iloc[0],
        results.column: mean,
        "ci_low": low,
        "ci_high": high,
        "units": len(values),
        "search_samples": search["samples"].mean() if len(search) else 0.0,
        "search_seconds": search["seconds"].mean() if len(search) else 0.0,
        "trials": search["trials"].mean() if len(search) else 0.0,
        "peak_memory_mib": search["peak_memory_mib"].max() if len(search) else float("nan"),
        "parameters": own["parameters"].mean(),
        "macs": own["macs"].mean(),
        "latency_ms": own["latency_ms"].mean(),
        "genotypes": " ".join(own.sort_values("seed")["module"].unique()),
    }


def _add_tests(table: pd.DataFrame, results: _Results) -> pd.DataFrame:
    """Add differences from random search, p-values, and Holm's correction per kind of module."""
    table = table.assign(difference=np.nan, p_value=np.nan, p_holm=np.nan, significant=False)
    if RANDOM_SEARCH not in results.values.index:
        return table
    others = table["name"] != RANDOM_SEARCH
    for i in table.index[others]:
        own, chance = results.pairs(table.at[i, "name"]).to_numpy()
        if len(own):
            table.loc[i, "difference"] = results.metric.restored(float((own - chance).mean()))
        p = paired_p_value(own.tolist(), chance.tolist(), results.resolution)
        table.loc[i, "p_value"] = p
    baseline = table["family"] == "baseline"
    for kind in (others & ~baseline, others & baseline):
        table.loc[kind, "p_holm"] = holm(table.loc[kind, "p_value"].tolist())
    table["significant"] = table["p_holm"] < SIGNIFICANCE
    return table


def _reading(
    table: pd.DataFrame, results: _Results, by_search: bool, test_size: int, dataset: str
) -> list[str]:
    sentences = []
    strategies = table[(table["family"] != "baseline") & (table["name"] != RANDOM_SEARCH)]
    if RANDOM_SEARCH not in results.values.index:
        sentences.append(
            "Random search was not among the strategies, so none was tested against it."
        )
    elif len(strategies):
        sentences.append(_against_random(strategies, results, by_search))
    if results.metric.share:
        sentences.append(_resolution(table, results, test_size, dataset))
    return sentences


def _against_random(strategies: pd.DataFrame, results: _Results, by_search: bool) -> str:
    unit = "independent searches" if by_search else "final trainings of one search"
    paired = [results.pairs(name).to_numpy() for name in strategies["name"]]
    differences = [(own - chance).tolist() for own, chance in paired if len(own) >= 2]
    if not differences:
        return (
            "With one final training a strategy there is no measure of noise: the order of this "
            "table means nothing; ask for more seeds."
        )
    metric = results.metric
    significant = strategies[strategies["significant"]]
    found = [
        f"{name} is {'better' if metric.is_better(difference) else 'worse'} than random search by "
        f"{metric.size(difference)} (p = {p:.3g} after Holm's correction)"
        for name, difference, p in zip(
            significant["name"], significant["difference"], significant["p_holm"], strict=True
        )
    ]
    pairs = min(len(difference) for difference in differences)
    least = detectable_difference(differences, len(differences), results.resolution)
    power = (
        f"with {pairs} {unit} each, a true difference {'by' if metric.ratio else 'of'} "
        f"{metric.size(metric.restored(least))} would be found 8 times in 10, a smaller one less "
        f"often"
    )
    if found:
        return f"{'; '.join(found)}; {power}."
    return f"No strategy can be told apart from random search: {power}."


def _resolution(table: pd.DataFrame, results: _Results, test_size: int, dataset: str) -> str:
    share = results.column.removeprefix("test_")
    best = float(np.clip(table[results.column].iloc[0], 0.001, 0.999))
    error = 100 * float(np.sqrt(best * (1 - best) / test_size))
    sentence = (
        f"One of the {test_size:,} test images of {dataset} is {100 / test_size:.2g} points, and "
        f"an {share} of {best:.1%} on so many has a sampling error of {error:.2g} points"
    )
    if test_size < SMALL:
        return (
            f"{sentence}: a set as small as this shows that the machinery works and that a module "
            f"is not broken, but not which of two good modules is better."
        )
    return f"{sentence}."
