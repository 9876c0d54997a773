"""Grid search: every genotype once, in an order shuffled by the seed.

The exhaustive reference on small spaces; with less budget than the space is large it is random
search without replacement.
"""

from collections.abc import Sequence
from typing import ClassVar

from optuna.samplers import GridSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from sase_ray.encodings import optuna_search
from sase_ray.strategies.base import BlackBox, SearchTask


class GridSearch(BlackBox):
    """Exhaustive enumeration."""

    name: ClassVar[str] = "grid"
    source: ClassVar[str] = "exhaustive enumeration (Optuna's GridSampler)"
    summary: ClassVar[str] = "every genotype once, in an order shuffled by the seed"

    def searcher(self, task: SearchTask) -> Searcher:
        """Walk through Optuna's grid."""
        grid = {variable.name: list(variable.choices) for variable in task.job.space.variables}
        # No warm start: a genotype tried first would be met again on the walk.
        return optuna_search(_Grid(grid, seed=task.job.seed), (), task.job.space)

    def max_trials(self, task: SearchTask) -> int:
        """End when the space is exhausted."""
        return task.job.space.size


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
