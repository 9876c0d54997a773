"""Regret of strategies on a ground-truth table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sase_ray.statistics.paired_tests import SIGNIFICANCE, estimate, mean_of_steps
from sase_ray.statistics.rank_tests import overall, pairwise
from sase_ray.tabular_benchmark.benchmark import TabularBenchmark
from search_spaces.errors import UserError
from trainables.metrics import find_metric

GRID = 80
"""Number of points of the curve of regret over cost."""


def regret_curves(searches: pd.DataFrame, budget: int) -> pd.DataFrame:
    """Average the regret of the incumbents over searches, from where all have one.

    Returns:
        Columns `strategy`, `samples`, `regret`, `low`, `high` (95% interval of the mean).
    """
    rows = []
    for name, own in searches.groupby("strategy", sort=False):
        runs = [run for _, run in own.groupby("seed")]
        first = max(run["samples"].iloc[0] for run in runs)
        grid = np.linspace(first, budget, GRID)
        steps = [(run["samples"].to_numpy(), run["regret"].to_numpy()) for run in runs]
        for samples, mean in zip(grid, mean_of_steps(steps, grid), strict=True):
            rows.append(
                {
                    "strategy": name,
                    "samples": samples,
                    "regret": mean.mean,
                    "low": mean.low,
                    "high": mean.high,
                }
            )
    return pd.DataFrame(rows)


def rank_strategies(ends: pd.DataFrame) -> pd.DataFrame:
    """Summarise the final regrets of searches.

    Returns:
        One row per strategy, best mean rank first: `name`, `regret` with `ci_low` and `ci_high`,
        `median`, `mean_rank` (1 is best; the strategies of one seed are ranked), `trials`,
        `samples`, `seconds`, and `tied`: whether it does not differ significantly from the best
        mean rank by Nemenyi's test, or Friedman's test before it is not significant (Demsar, JMLR
        2006).
    """
    blocks = regret_blocks(ends)
    ranks = blocks.rank(axis=1).mean()
    tests = pairwise(blocks)
    best = ranks.idxmin()
    differ = overall(blocks) < SIGNIFICANCE
    rows = []
    for name, own in ends.groupby("strategy", sort=False):
        mean = estimate(own["regret"].tolist())
        rows.append(
            {
                "name": name,
                "regret": mean.mean,
                "ci_low": mean.low,
                "ci_high": mean.high,
                "median": own["regret"].median(),
                "mean_rank": ranks[name],
                "trials": own["trials"].mean(),
                "samples": own["samples"].mean(),
                "seconds": own["seconds"].mean(),
                "tied": not differ or name == best or bool(tests.loc[name, best] >= SIGNIFICANCE),
            }
        )
    return pd.DataFrame(rows).sort_values("mean_rank", kind="stable").reset_index(drop=True)


def regret_blocks(ends: pd.DataFrame) -> pd.DataFrame:
    """Return the final regrets as blocks: one row per seed, one column per strategy."""
    return ends.pivot(index="seed", columns="strategy", values="regret")


def validity_sentence(table: TabularBenchmark) -> str:
    """Describe whether the table is known to rank genotypes as the final protocol does."""
    validity = table.validity
    if validity is None:
        return (
            "Validity: whether this table ranks genotypes as final trainings do has not been "
            "measured; what follows holds for the table only."
        )
    found = (
        f"Kendall's tau is {validity.tau:.2f} with the {validity.of} (p = {validity.p_value:.2g}, "
        f"{validity.genotypes} genotypes)"
    )
    if validity.p_value < SIGNIFICANCE and validity.tau > 0:
        return f"Validity: this table ranks genotypes as final trainings do: {found}."
    return (
        f"Validity: this table is not shown to rank genotypes as final trainings do: {found}; what "
        f"follows holds for the table only."
    )


def reading_of(
    ranking: pd.DataFrame,
    ends: pd.DataFrame,
    table: TabularBenchmark,
    metric: str,
    noise: bool,
) -> Iterator[str]:
    """Return the sentences on a ranking of strategies by regret, the table's validity first."""
    yield validity_sentence(table)
    kind = find_metric(metric)
    unit, scale = kind.unit_of_difference, kind.scale
    if len(ranking) > 1:
        p = overall(regret_blocks(ends))
        test = "Friedman" if len(ranking) > 2 else "Wilcoxon"
        verdict = "differ" if p < SIGNIFICANCE else "cannot be told apart"
        searches = ends["seed"].nunique()
        yield f"Over {searches} searches each, the strategies {verdict} ({test}, p = {p:.2g})."
        if p < SIGNIFICANCE:
            best, *others = ranking["name"]
            tied = [name for name in others if ranking.set_index("name").at[name, "tied"]]
            yield (
                f"Best mean rank: {best}"
                + (f"; not told apart from it: {', '.join(tied)}." if tied else ".")
            )
    chance = scale * table.mean_regret(metric)
    floor = scale * table.regret(table.best(metric), metric)
    yield (
        f"For scale: a genotype picked blindly has a mean regret of {chance:.4f} {unit}, the one "
        f"recorded best on validation images {floor:.4f}; the best has 0."
    )
    try:
        icc, agreement = table.reliability(metric).icc(), table.test_agreement(metric)
    except UserError:
        yield "No genotype of this table has several seeds, so its noise is not known."
        return
    seen = (
        "every search drew true scores of its own, and trainings with the measured noise"
        if noise
        else "every search saw the recorded trainings"
    )
    yield (
        f"The ICC of one training in this table is {icc:.2f} (of the scores as recorded, as "
        f"`sase-ray reliability` has it); {seen}."
    )
    yield (
        f"Validation and test images agree on the genotypes with a correlation of "
        f"{agreement:.2f}, noise taken out."
    )
