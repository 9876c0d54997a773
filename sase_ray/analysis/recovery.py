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
from trainables.tasks.distillation import NORMALISED_ERROR

PLANTED = "planted"
"""Name of the baseline that is the planted genotype itself."""

ERROR = "test_normalised_error"

Row = dict[str, Any]


def recovery_rows(
    outcomes: Iterable[SearchOutcome],
    finals: pd.DataFrame | None,
    plants: Mapping[int, Genotype],
    space: SearchSpace,
) -> Iterator[Row]:
    """Yield one row per search: the edges it recovered, and its error beside the plant's own.

    Args:
        outcomes: Searches that ended well.
        finals: Final trainings: `name`, `seed`, `diverged`, `test_normalised_error`; those of the
            planted genotypes have the name `PLANTED`. None if nothing was trained: then the errors
            are NaN.
        plants: Planted genotype by the seed of the search.
        space: Search space.
    """
    names = [variable.name for variable in space.variables]
    chance = sum(1 / len(variable.choices) for variable in space.variables)
    errors = {} if finals is None else _errors(finals)
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


def _errors(finals: pd.DataFrame) -> dict[tuple[str, int], float]:
    """Return the mean error of each name and seed (geometric), without trainings that diverged."""
    ended = finals[~finals["diverged"].astype(bool)]
    compared = ended.assign(compared=NORMALISED_ERROR.compared(ended[ERROR]))
    means = compared.groupby(["name", "seed"])["compared"].mean()
    return {key: NORMALISED_ERROR.restored(mean) for key, mean in means.items()}


def recovery_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per strategy, most recovered edges first.

    Its columns are `strategy`, `plants`, the mean of recovered edges with its 95% interval
    (`recovered`, `low`, `high`), `p_holm` (paired t-test over plants against random search, after
    Holm's correction), how often the plant was `found` and was `ranked` at all, and the geometric
    means of `error`, `plant_error` and their ratio (`times`).

    Args:
        rows: Table `recovery` of a run.
    """
    by_seed = rows.pivot_table(index="strategy", columns="seed", values="recovered")
    summary = []
    for name, own in rows.groupby("strategy", sort=False):
        mean = estimate(own["recovered"].tolist(), 1.0)
        error, least = (
            pd.Series(NORMALISED_ERROR.compared(own[key])) for key in ("error", "plant_error")
        )
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
                "error": NORMALISED_ERROR.restored(error.mean()),
                "plant_error": NORMALISED_ERROR.restored(least.mean()),
                "times": NORMALISED_ERROR.restored((error - least).mean()),
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
    one_plant = rows["plant"].nunique() == 1
    units = "searches" if one_plant else "plants"
    if one_plant and len(summary) == len(rows):
        yield from _of_single_searches(rows)
    else:
        parts = [f"{row.strategy} {_of_edges(row)}" for row in summary.itertuples()]
        yield (
            f"Edges of the planted genotype that were recovered, of {edges} (blind guessing gives "
            f"{chance:.2f}; mean over {units}, 95% interval): {'; '.join(parts)}."
        )
    trained = summary[summary["times"].notna()]
    if len(trained):
        parts = [f"{row.strategy} {row.times:.3g}" for row in trained.itertuples()]
        plants = rows.drop_duplicates("seed")["plant_error"]
        least = NORMALISED_ERROR.restored(pd.Series(NORMALISED_ERROR.compared(plants)).mean())
        yield (
            f"Normalised error of the answers as a multiple of that of the planted genotype, "
            f"trained alike, which is {NORMALISED_ERROR.show(least)} (geometric means): "
            f"{'; '.join(parts)}."
        )
    if rows["seed"].nunique() > 1:
        good = [r.strategy for r in summary.itertuples() if r.low > chance]
        told = [r.strategy for r in summary.itertuples() if r.p_holm < SIGNIFICANCE]
        yield (
            f"Above chance by its interval: {', '.join(good) or 'no strategy'}. Different from "
            f"random search (paired over {units}, after Holm's correction): "
            f"{', '.join(told) or 'no strategy'}."
        )
        failed = [r.strategy for r in summary.itertuples() if r.low <= chance <= r.high]
        if failed:
            yield (
                f"There is an answer here, and {', '.join(failed)} cannot be told apart from "
                f"guessing its edges: with this budget they do not work, or they are broken."
            )


def _of_single_searches(rows: pd.DataFrame) -> Iterator[str]:
    """Yield what each strategy found, where each has searched once."""
    first = rows.iloc[0]
    parts = [
        f"{row.strategy} {row.recovered}" + (f" ({', '.join(row.which.split())})" * bool(row.which))
        for row in rows.itertuples()
    ]
    yield (
        f"Edges of the planted genotype {first['plant']} that were recovered, of {first['edges']} "
        f"(blind guessing gives {first['chance']:.2f}): {'; '.join(parts)}."
    )
    ranks = [
        f"{row.strategy} "
        + ("not at all" if math.isnan(row.rank) else f"{row.rank:.0f} of {row.ranked}")
        for row in rows.itertuples()
    ]
    yield f"Where the planted genotype was ranked: {'; '.join(ranks)}."


def _of_edges(row: Any) -> str:
    if math.isnan(row.low):
        return f"{row.recovered:.2f}"
    p = "" if math.isnan(row.p_holm) else f", p = {row.p_holm:.2g} to random"
    return f"{row.recovered:.2f} ({row.low:.2f} to {row.high:.2f}{p})"
