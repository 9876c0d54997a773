"""Agreement of the ranking inside a supernet with that of stand-alone trainings."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sase_ray.config import Config
from sase_ray.results.history import SearchOutcome
from sase_ray.tabular_benchmark.benchmark import TabularBenchmark
from search_spaces.errors import UserError
from search_spaces.genotype import Genotype
from search_spaces.space import SearchSpace

GENOTYPES = 100
BUNDLED_TABLE = "table"


@dataclass(frozen=True)
class Truth:
    """Genotypes, and the losses of their stand-alone trainings.

    Attributes:
        genotypes: Genotypes of a ground-truth table.
        losses: Validation losses at the end of their trainings in nats, without the noise.
        ceiling: Kendall's tau of two trainings of the same genotypes: no ranking can be expected
            to agree much better with the truth than the truth agrees with itself.
    """

    genotypes: tuple[Genotype, ...]
    losses: tuple[float, ...]
    ceiling: float

    @classmethod
    def of(cls, config: Config, space: SearchSpace) -> Truth | None:
        """Sample genotypes of the table that the configuration names; None if it names none.

        Raises:
            UserError: There is no such table, or it is of other data, space or host.
        """
        if config.agreement is None:
            return None
        table = TabularBenchmark.load(
            None if config.agreement == BUNDLED_TABLE else config.agreement
        )
        _check_same(config, space, table)
        # The true losses of genotypes that were trained with several seeds are known best.
        known = list(table.repeated_genotypes)
        rng = random.Random(0)
        chosen = rng.sample(known, min(GENOTYPES, len(known)))
        if len(chosen) < GENOTYPES:
            others = sorted(set(table.genotypes) - set(chosen))
            chosen += rng.sample(others, min(GENOTYPES - len(chosen), len(others)))
        return cls(
            tuple(Genotype.parse(text) for text in chosen),
            tuple(table.truth(text) for text in chosen),
            table.seed_agreement(),
        )

    def rows(self, outcomes: Iterable[SearchOutcome]) -> Iterator[dict[str, Any]]:
        """Yield one row per one-shot search: Kendall's tau with its 95% interval over genotypes."""
        from sase_ray.statistics.rank_tests import (
            kendall,  # takes a second to load, in every search's process
        )

        for outcome in outcomes:
            scores = next(
                (row["scores"] for row in reversed(outcome.history.evaluations) if "scores" in row),
                None,
            )
            if scores is None:
                continue
            # A high score is good, a high loss bad.
            found = kendall(scores, [-loss for loss in self.losses])
            yield {
                "strategy": outcome.strategy,
                "seed": outcome.seed,
                "tau": found.tau,
                "low": found.low,
                "high": found.high,
                "genotypes": found.pairs,
            }

    def reading(self, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
        """Yield what the rows mean: each strategy's tau, the ceiling, and who is not above chance.

        Args:
            rows: Rows of `rows`.
        """
        if not rows:
            return
        frame = pd.DataFrame(rows)
        parts = [
            f"{name} {own['tau'].mean():.2f} ({own['low'].min():.2f} to {own['high'].max():.2f})"
            for name, own in frame.groupby("strategy", sort=False)
        ]
        yield (
            f"Kendall's tau of a search's own ranking with stand-alone trainings, over "
            f"{len(self.genotypes)} genotypes, mean over searches (range of their 95% intervals): "
            f"{'; '.join(parts)}. Two trainings alone agree with each other by {self.ceiling:.2f}."
        )
        blind = [str(name) for name, own in frame.groupby("strategy", sort=False) if _blind(own)]
        if blind:
            yield (
                f"No search of {', '.join(blind)} ranks genotypes better than chance by more than "
                f"its interval: what they chose is no evidence that it is good."
            )


def _blind(own: pd.DataFrame) -> bool:
    return not bool((own["low"] > 0).any())


def _check_same(config: Config, space: SearchSpace, table: TabularBenchmark) -> None:
    recorded = table.about["config"]
    own = config.model_dump(mode="json", include={"dataset": True, "backbone": True})
    for key, value in own.items():
        if recorded.get(key) != value:
            raise UserError(
                f"agreement: the table was trained with {key} {recorded.get(key)}, this "
                f"comparison has {value}"
            )
    theirs = {edge: table.space.sets[name] for edge, name in table.space.edges.items()}
    ours = {edge: space.sets[name] for edge, name in space.edges.items()}
    if theirs != ours or table.space.stages != space.stages:
        raise UserError(
            f"agreement: the table is of space {table.space.name!r}, not of {space.name!r}"
        )
