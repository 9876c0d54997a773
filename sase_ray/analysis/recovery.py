"""Recovery of planted modules: what each search found of the genotype it was to find."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from sase_ray.config import RANDOM_SEARCH
from sase_ray.results.history import SearchOutcome
from sase_ray.statistics.paired_tests import SIGNIFICANCE, estimate, holm, paired_p_value
from search_spaces.genotype import Genotype
from search_spaces.space import SearchSpace

PLANTED = "planted"
"""Name of the baseline that is the planted genotype itself."""

ERROR = "test_normalised_error"

Row = dict[str, Any]


def recovery_rows(
    outcomes: Iterable[SearchOutcome],
    finals: pd.DataFrame,
    plants: Mapping[int, Genotype],
    space: SearchSpace,
) -> Iterator[Row]:
    """Yield one row per search: the edges it recovered, and its error beside the plant's own.

    Args:
        outcomes: Searches that ended well.
        finals: Final trainings: `name`, `seed`, `diverged`, `test_normalised_error`; those of the
            planted genotypes have the name `PLANTED`.
        plants: Planted genotype by the seed of the search.
        space: Search space.
    """
    names = [variable.name for variable in space.variables]
    chance = sum(1 / len(variable.choices) for variable in space.variables)
    errors = finals[~finals["diverged"].astype(bool)].groupby(["name", "seed"])[ERROR].mean()
    for outcome in outcomes:
        plant = plants[outcome.seed]
        recovered = [
            name
            for name, own, planted in zip(names, outcome.genotype.ops, plant.ops, strict=True)
            if own == planted
        ]
        ranked = [genotype for genotype, _ in outcome.ranking]
        error, least = (
            float(errors.get((name, outcome.seed), math.nan))
            for name in (outcome.strategy, PLANTED)
        )
        yield {
            "strategy": outcome.strategy,
            "seed": outcome.seed,
            "plant": str(plant),
            "genotype": str(outcome.genotype),
            "recovered": len(recovered),
            "edges": len(names),
            "chance": chance,
            "which": " ".join(recovered),
            "rank": 1 + ranked.index(plant) if plant in ranked else math.nan,
            "ranked": len(ranked),
            "error": error,
            "plant_error": least,
            "excess": error - least,
        }


def recovery_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per strategy, most recovered edges first.

    Its columns are `strategy`, `plants`, the mean of recovered edges with its 95% interval
    (`recovered`, `low`, `high`), `p_holm` (paired t-test over plants against random search, after
    Holm's correction), how often the plant was `found` and was `ranked` at all, and the mean
    `error`, `plant_error` and `excess`.

    Args:
        rows: Table `recovery` of a run.
    """
    by_seed = rows.pivot_table(index="strategy", columns="seed", values="recovered")
    summary = []
    for name, own in rows.groupby("strategy", sort=False):
        mean = estimate(own["recovered"].tolist(), 1.0)
        summary.append(
            {
                "strategy": str(name),
                "plants": len(own),
                "recovered": mean.mean,
                "low": mean.low,
                "high": mean.high,
                "p": _against_random(by_seed, str(name)),
                "found": int((own["recovered"] == own["edges"]).sum()),
                "ranked": int(own["rank"].notna().sum()),
                "error": own["error"].mean(),
                "plant_error": own["plant_error"].mean(),
                "excess": own["excess"].mean(),
            }
        )
    table = pd.DataFrame(summary)
    table["p_holm"] = holm(table.pop("p").tolist())
    return table.sort_values("recovered", ascending=False, kind="stable").reset_index(drop=True)


def _against_random(by_seed: pd.DataFrame, name: str) -> float:
    if name == RANDOM_SEARCH or RANDOM_SEARCH not in by_seed.index:
        return math.nan
    own, blind = by_seed.loc[[name, RANDOM_SEARCH]].dropna(axis="columns").to_numpy()
    return paired_p_value(own.tolist(), blind.tolist(), 1.0)


def recovery_reading(rows: pd.DataFrame) -> Iterator[str]:
    """Yield what a table `recovery` says, in sentences.

    Args:
        rows: Table `recovery` of a run.
    """
    if rows.empty:
        return
    summary = recovery_summary(rows)
    edges, chance = int(rows["edges"].iloc[0]), float(rows["chance"].iloc[0])
    parts = [f"{row.strategy} {_of_edges(row)}" for row in summary.itertuples()]
    yield (
        f"Edges of the planted genotype that were recovered, of {edges} (blind guessing gives "
        f"{chance:.2f}; mean over plants, 95% interval): {'; '.join(parts)}."
    )
    parts = [f"{row.strategy} {row.excess:+.4f}" for row in summary.itertuples()]
    yield (
        f"Normalised error of the answers above that of the planted genotypes, which is "
        f"{summary['plant_error'].mean():.4f} in the mean: {'; '.join(parts)}."
    )
    if rows["seed"].nunique() > 1:
        good = [r.strategy for r in summary.itertuples() if r.low > chance]
        told = [r.strategy for r in summary.itertuples() if r.p_holm < SIGNIFICANCE]
        yield (
            f"Above chance by its interval: {', '.join(good) or 'no strategy'}. Different from "
            f"random search (paired over plants, after Holm's correction): "
            f"{', '.join(told) or 'no strategy'}."
        )
        failed = [r.strategy for r in summary.itertuples() if r.low <= chance <= r.high]
        if failed:
            yield (
                f"There is an answer here, and {', '.join(failed)} cannot be told apart from "
                f"guessing its edges: with this budget, that is broken or does not work."
            )


def _of_edges(row: Any) -> str:
    if math.isnan(row.low):
        return f"{row.recovered:.2f}"
    p = "" if math.isnan(row.p_holm) else f", p = {row.p_holm:.2g} to random"
    return f"{row.recovered:.2f} ({row.low:.2f} to {row.high:.2f}{p})"
