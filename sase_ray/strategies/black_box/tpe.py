"""TPE: draws operations that are more frequent in good trials than in bad ones.

Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011.
"""

from typing import ClassVar

from optuna.samplers import TPESampler
from pydantic import Field
from ray.tune.search import Searcher

from sase_ray.strategies.black_box.base import BlackBox
from sase_ray.strategies.black_box.encodings import optuna_search
from sase_ray.strategies.contract import SearchTask


class TPE(BlackBox):
    """Tree-structured Parzen estimator."""

    name: ClassVar[str] = "tpe"
    source: ClassVar[str] = "Bergstra et al. 2011 (Optuna's TPESampler)"
    summary: ClassVar[str] = "tree-structured Parzen estimator over full trials"

    startup_trials: int | None = Field(
        default=None,
        ge=1,
        description="random trials before the model; default: 10, or a third of what the budget "
        "pays for if that is less",
    )

    def searcher(self, task: SearchTask) -> Searcher:
        """Return a searcher that draws from Optuna's TPE sampler."""
        affordable = (task.budget - task.samples_before_trials) // task.job.samples_per_trial
        startup = self.startup_trials or max(1, min(10, affordable // 3))
        sampler = TPESampler(seed=task.job.seed, n_startup_trials=startup)
        return optuna_search(sampler, task.warm_start, task.job.space)
