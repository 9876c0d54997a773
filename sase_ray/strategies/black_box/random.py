"""Random search: genotypes drawn uniformly without replacement, each trained to the end.

Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 2012; as a baseline of
architecture search: Li and Talwalkar, "Random Search and Reproducibility for NAS", UAI 2019.
"""

import random
from collections.abc import Mapping
from typing import Any, ClassVar

from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from ray.tune.search import Searcher

from sase_ray.strategies.black_box.base import BlackBox
from sase_ray.strategies.black_box.encodings import optuna_search, to_distributions
from sase_ray.strategies.contract import SearchTask
from search_spaces.space import SearchSpace


class RandomSearch(BlackBox):
    """Random search by uniform draws."""

    name: ClassVar[str] = "random"
    source: ClassVar[str] = "Bergstra & Bengio 2012; Li & Talwalkar 2019"
    summary: ClassVar[str] = "genotypes drawn uniformly, each trained to the end"

    tries_blindly: ClassVar[bool] = True

    def searcher(self, task: SearchTask) -> Searcher:
        """Return a searcher that draws by an Optuna sampler."""
        sampler = WithoutReplacement(task.job.space, task.job.seed)
        return optuna_search(sampler, task.warm_start, task.job.space)

    def max_trials(self, task: SearchTask) -> int:
        """Return the size of the space, after which it is exhausted."""
        return task.job.space.size


class WithoutReplacement(RandomSampler):
    """Optuna's random sampler, which draws no genotype twice.

    All trials of a search have the same seed, so a genotype that is drawn again would be trained
    again with the same result.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(seed=seed)
        self.space = space
        self.random = random.Random(seed)
        self.drawn: set[tuple[Any, ...]] = set()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all variables, which are drawn together."""
        return to_distributions(self.space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Draw a genotype that no earlier trial has."""
        fixed = trial.system_attrs.get("fixed_params")
        if fixed:  # a genotype of the warm start
            self.drawn.add(tuple(fixed.get(name) for name in search_space))
            return {}
        while True:
            config = self.space.to_config(self.space.sample(self.random))
            key = tuple(config[name] for name in search_space)
            if key not in self.drawn:
                self.drawn.add(key)
                return config
