"""Random search: genotypes drawn uniformly, each trained to the end.

Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 2012; as the baseline
of architecture search: Li and Talwalkar, "Random Search and Reproducibility for NAS", UAI 2019.
"""

from typing import ClassVar

from optuna.samplers import RandomSampler
from ray.tune.search import Searcher

from sase_ray.encodings import optuna_search
from sase_ray.strategies.base import BlackBox, SearchTask


class RandomSearch(BlackBox):
    """Uniform draws."""

    name: ClassVar[str] = "random"
    source: ClassVar[str] = "Bergstra & Bengio 2012; Li & Talwalkar 2019"
    summary: ClassVar[str] = "genotypes drawn uniformly, each trained to the end"

    def searcher(self, task: SearchTask) -> Searcher:
        """Draw from Optuna's random sampler."""
        return optuna_search(RandomSampler(seed=task.job.seed), task.warm_start, task.job.space)
