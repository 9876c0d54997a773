"""Rows of the result tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sase_ray.results.history import SearchOutcome
from search_spaces.genotype import Genotype
from search_spaces.space import SearchSpace

Row = dict[str, Any]


_NOT_IN_CURVES = frozenset({"alpha", "ranking", "scores", "finished"})


def search_rows(outcomes: Iterable[SearchOutcome]) -> list[Row]:
    """Return one row per search: its answer and its cost."""
    return [
        {
            "strategy": outcome.strategy,
            "seed": outcome.seed,
            "genotype": str(outcome.genotype),
            "samples": outcome.samples,
            "seconds": outcome.seconds,
            "trials": len(outcome.history.trials()),
            "peak_memory_mib": outcome.peak_memory_mib,
        }
        | {key: outcome.last(key) for key in ("entropy", "travel", "travel_max")}
        for outcome in outcomes
    ]


def trial_rows(outcomes: Iterable[SearchOutcome], families: Mapping[str, str]) -> Iterable[Row]:
    """Yield one row per trial."""
    for outcome in outcomes:
        for row in outcome.history.trials():
            head = {
                "strategy": outcome.strategy,
                "family": families[outcome.strategy],
                "seed": outcome.seed,
            }
            yield head | row | edges_of(row.get("genotype"))


def edges_of(genotype: str | None) -> dict[str, str]:
    """Return the operation by edge (of each stage); nothing without a genotype."""
    if genotype is None:
        return {}
    parsed = Genotype.parse(genotype)
    if parsed.stages == 1:
        return parsed.edges()
    return {
        f"stage{stage}.{edge}": op
        for stage in range(parsed.stages)
        for edge, op in parsed.stage(stage).edges().items()
    }


def curve_rows(outcomes: Iterable[SearchOutcome]) -> Iterable[Row]:
    """Yield one row per evaluation."""
    for outcome in outcomes:
        for row in outcome.history.evaluations:
            plain = {key: value for key, value in row.items() if key not in _NOT_IN_CURVES}
            yield {"strategy": outcome.strategy, "seed": outcome.seed} | plain


def alpha_rows(outcomes: Iterable[SearchOutcome], space: SearchSpace) -> Iterable[Row]:
    """Yield one row per probability of a one-shot search."""
    choices = {variable.name: variable.choices for variable in space.variables}
    for outcome in outcomes:
        for row in outcome.history.evaluations:
            for variable, probabilities in row.get("alpha", {}).items():
                for op, probability in zip(choices[variable], probabilities, strict=True):
                    yield {
                        "strategy": outcome.strategy,
                        "seed": outcome.seed,
                        "search_samples": row["search_samples"],
                        "variable": variable,
                        "operation": op,
                        "probability": probability,
                    }


def ranking_rows(outcomes: Iterable[SearchOutcome]) -> Iterable[Row]:
    """Yield one row per ranked genotype."""
    for outcome in outcomes:
        for rank, (genotype, score) in enumerate(outcome.ranking, start=1):
            yield {
                "strategy": outcome.strategy,
                "seed": outcome.seed,
                "rank": rank,
                "genotype": str(genotype),
                "score": score,
                "score_is": outcome.score,
            }
