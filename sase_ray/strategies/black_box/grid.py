"""Grid search: every genotype once, in an order shuffled by the seed.

It is the exhaustive reference on small spaces; if the budget does not cover the space, it is
random search without replacement. Given a list, it trains only the genotypes of the list.
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
"""Maximum number of genotypes for Optuna's grid, which holds them all in memory."""


class GridSearch(BlackBox):
    """Exhaustive enumeration of the space or of a list."""

    name: ClassVar[str] = "grid"
    source: ClassVar[str] = "exhaustive enumeration (Optuna's GridSampler)"
    summary: ClassVar[str] = "every genotype once, in an order shuffled by the seed"

    tries_blindly: ClassVar[bool] = True
    takes_warm_start: ClassVar[bool] = False  # it trains all genotypes anyway

    genotypes: tuple[str, ...] = Field(
        default=(), description="genotypes to train, in this order; default the whole space"
    )

    def check(self, task: SearchTask) -> None:
        """Reject a genotype that is not in the space, and a space too large to enumerate."""
        super().check(task)
        if not self.genotypes and task.job.space.size > LARGEST:
            raise UserError(
                f"grid walks spaces of up to {LARGEST:,} genotypes, and {task.job.space.name!r} "
                f"has {task.job.space.size:,}: take random"
            )
        for text in self.genotypes:
            task.job.space.parse(text)

    def searcher(self, task: SearchTask) -> Searcher:
        """Return a searcher that enumerates the list or Optuna's grid."""
        space = task.job.space
        if self.genotypes:
            listed = [space.parse(text) for text in self.genotypes]
            return optuna_search(RandomSampler(seed=task.job.seed), listed, space)
        grid = {variable.name: list(variable.choices) for variable in space.variables}
        # No warm start: a genotype that was tried first would be trained again later.
        return optuna_search(_Grid(grid, seed=task.job.seed), (), space)

    def max_trials(self, task: SearchTask) -> int:
        """Return the number of genotypes in the list or the space."""
        return len(self.genotypes) or task.job.space.size


class _Grid(GridSampler):
    """Optuna's grid without its stop, as the trials run in Tune's loop, not in Optuna's."""

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Do nothing: `max_trials` ends the search."""
