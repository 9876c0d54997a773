"""Grid search: every genotype once, in an order shuffled by the seed.

The exhaustive reference on small spaces; with less budget than the space is large it is random
search without replacement. Given a list, it trains just the genotypes of the list.
"""

from collections.abc import Sequence
from typing import ClassVar

from optuna.samplers import GridSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field
from ray.tune.search import Searcher

from sase_ray.strategies.black_box.base import BlackBox
from sase_ray.strategies.black_box.encodings import optuna_search
from sase_ray.strategies.contract import SearchTask
from search_spaces.errors import UserError

LARGEST = 1_000_000
"""Genotypes that Optuna's grid, which holds them all in memory, is asked to walk."""


class GridSearch(BlackBox):
    """Exhaustive enumeration, of the space or of a list."""

    name: ClassVar[str] = "grid"
    source: ClassVar[str] = "exhaustive enumeration (Optuna's GridSampler)"
    summary: ClassVar[str] = "every genotype once, in an order shuffled by the seed"

    takes_warm_start: ClassVar[bool] = False  # it walks through all of them anyway

    genotypes: tuple[str, ...] = Field(
        default=(), description="train these alone, in this order; by default the whole space"
    )

    def check(self, task: SearchTask) -> None:
        """Refuse a genotype that the space does not have, and a space too large to walk."""
        super().check(task)
        if not self.genotypes and task.job.space.size > LARGEST:
            raise UserError(
                f"grid walks spaces of up to {LARGEST:,} genotypes, and {task.job.space.name!r} "
                f"has {task.job.space.size:,}: take random"
            )
        for text in self.genotypes:
            task.job.space.parse(text)

    def searcher(self, task: SearchTask) -> Searcher:
        """Walk through the list, or through Optuna's grid."""
        space = task.job.space
        if self.genotypes:
            listed = [space.parse(text) for text in self.genotypes]
            return optuna_search(RandomSampler(seed=task.job.seed), listed, space)
        grid = {variable.name: list(variable.choices) for variable in space.variables}
        # No warm start: a genotype tried first would be met again on the walk.
        return optuna_search(_Grid(grid, seed=task.job.seed), (), space)

    def max_trials(self, task: SearchTask) -> int:
        """End when the list or the space is exhausted."""
        return len(self.genotypes) or task.job.space.size


class _Grid(GridSampler):
    """Optuna's grid without its stop: the trials run in Tune's loop, not in Optuna's."""

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Leave the end to `max_trials`."""
