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


@dataclass(frozen=True)
class Verdict:
    """Table of a comparison, and what can be concluded from it.

    Attributes:
        table: One row per strategy and per baseline, best mean of the final metric first.
        reading: Sentences, the most important first.
        metric: Name of the final metric.
    """

    table: pd.DataFrame
    reading: tuple[str, ...]
    metric: str = "test_accuracy"


def judge(
    finals: pd.DataFrame,
    searches: pd.DataFrame,
    *,
    test_size: int,
    dataset: str,
    metric: str = "test_accuracy",
) -> Verdict:
    """Compare strategies by their final trainings.

    The unit of replication is the search: the final trainings that belong to one search seed are
    averaged, and strategies are paired by seed. With only one search seed the final trainings are
    the units, and the reading notes that they hold for these genotypes only. A search or training
    that failed is missing: its strategy is judged by the others.

    Args:
        finals: One row per final training: `name`, `family`, `seed` of the search, `final_seed`,
            `module`, `diverged`, `test_accuracy`, `parameters`, `macs`, `latency_ms`.
        searches: One row per search: `strategy`, `seed`, `samples`, `seconds`, `trials`,
            `peak_memory_mib`.
        test_size: Number of test images.
        dataset: Name of the data set.
        metric: Column of `finals` that is compared, a share of test images.
    """
    # A training that diverged has no accuracy: the reading names it, and its pair is left out.
    diverged = finals[finals["diverged"]]
    finals = finals.assign(**{metric: finals[metric].mask(finals["diverged"])})
    by_search = finals["seed"].nunique() > 1
    units = "seed" if by_search else "final_seed"
    accuracy = finals.groupby(["name", units])[metric].mean().unstack(units)
    image = 1 / test_size
    rows = [
        _row(name, accuracy.loc[name].dropna(), finals, searches, image, metric)
        for name in accuracy.index
    ]
    table = pd.DataFrame(rows).sort_values(metric, ascending=False, kind="stable")
    table = _add_tests(table, accuracy, image).reset_index(drop=True)
    reading = _reading(table, accuracy, by_search, test_size, dataset, metric)
    reading += [
        f"{len(rows)} final training(s) of {name} diverged and are left out of its mean."
        for name, rows in diverged.groupby("name")
    ]
    return Verdict(table, tuple(reading), metric)


def _row(
    name: str,
    accuracy: pd.Series,
    finals: pd.DataFrame,
    searches: pd.DataFrame,
    image: float,
    metric: str,
) -> dict[str, Any]:
    own = finals[finals["name"] == name]
    search = searches[searches["strategy"] == name] if len(searches) else searches
    result = estimate(accuracy.tolist(), image)
    return {
        "name": name,
        "family": own["family"].iloc[0],
        metric: result.mean,
        "ci_low": max(0.0, result.low) if len(accuracy) > 1 else result.low,
        "ci_high": min(1.0, result.high) if len(accuracy) > 1 else result.high,
        "units": len(accuracy),
        "search_samples": search["samples"].mean() if len(search) else 0.0,
        "search_seconds": search["seconds"].mean() if len(search) else 0.0,
        "trials": search["trials"].mean() if len(search) else 0.0,
        "peak_memory_mib": search["peak_memory_mib"].max() if len(search) else float("nan"),
        "parameters": own["parameters"].mean(),
        "macs": own["macs"].mean(),
        "latency_ms": own["latency_ms"].mean(),
        "genotypes": " ".join(own.sort_values("seed")["module"].unique()),
    }


def _pairs(accuracy: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return a strategy's accuracies and those of random search, for seeds that have both."""
    return accuracy.loc[[name, RANDOM_SEARCH]].dropna(axis="columns")


def _add_tests(table: pd.DataFrame, accuracy: pd.DataFrame, image: float) -> pd.DataFrame:
    """Add differences from random search, p-values, and Holm's correction per kind of module."""
    table = table.assign(difference=np.nan, p_value=np.nan, p_holm=np.nan, significant=False)
    if RANDOM_SEARCH not in accuracy.index:
        return table
    others = table["name"] != RANDOM_SEARCH
    for i in table.index[others]:
        own, chance = _pairs(accuracy, table.at[i, "name"]).to_numpy()
        if len(own):
            table.loc[i, "difference"] = float((own - chance).mean())
        table.loc[i, "p_value"] = paired_p_value(own.tolist(), chance.tolist(), image)
    baseline = table["family"] == "baseline"
    for kind in (others & ~baseline, others & baseline):
        table.loc[kind, "p_holm"] = holm(table.loc[kind, "p_value"].tolist())
    table["significant"] = table["p_holm"] < SIGNIFICANCE
    return table


def _reading(
    table: pd.DataFrame,
    accuracy: pd.DataFrame,
    by_search: bool,
    test_size: int,
    dataset: str,
    metric: str,
) -> list[str]:
    sentences = []
    strategies = table[(table["family"] != "baseline") & (table["name"] != RANDOM_SEARCH)]
    if RANDOM_SEARCH not in accuracy.index:
        sentences.append(
            "Random search was not among the strategies, so none was tested against it."
        )
    elif len(strategies):
        sentences.append(_against_random(strategies, accuracy, by_search, 1 / test_size))
    sentences.append(_resolution(table, test_size, dataset, metric))
    return sentences


def _against_random(
    strategies: pd.DataFrame, accuracy: pd.DataFrame, by_search: bool, image: float
) -> str:
    unit = "independent searches" if by_search else "final trainings of one search"
    paired = [_pairs(accuracy, name).to_numpy() for name in strategies["name"]]
    differences = [(own - chance).tolist() for own, chance in paired if len(own) >= 2]
    if not differences:
        return (
            "With one final training a strategy there is no measure of noise: the order of this "
            "table means nothing; ask for more seeds."
        )
    significant = strategies[strategies["significant"]]
    found = [
        f"{name} is {'better' if difference > 0 else 'worse'} than random search by "
        f"{abs(difference) * 100:.2f} points (p = {p:.3g} after Holm's correction)"
        for name, difference, p in zip(
            significant["name"], significant["difference"], significant["p_holm"], strict=True
        )
    ]
    pairs = min(len(difference) for difference in differences)
    smallest = detectable_difference(differences, len(differences), image) * 100
    power = (
        f"with {pairs} {unit} each, a true difference of {smallest:.2f} points would be found "
        f"8 times in 10, a smaller one less often"
    )
    if found:
        return f"{'; '.join(found)}; {power}."
    return f"No strategy can be told apart from random search: {power}."


def _resolution(table: pd.DataFrame, test_size: int, dataset: str, metric: str) -> str:
    share = metric.removeprefix("test_")
    best = min(0.999, float(table[metric].max()))
    error = 100 * float(np.sqrt(best * (1 - best) / test_size))
    sentence = (
        f"One of the {test_size:,} test images of {dataset} is {100 / test_size:.2g} points, and "
        f"an {share} of {best:.1%} on so many has a sampling error of {error:.2g} points"
    )
    if test_size < 1000:
        return (
            f"{sentence}: a set as small as this shows that the machinery works and that a module "
            f"is not broken, but not which of two good modules is better."
        )
    return f"{sentence}."
