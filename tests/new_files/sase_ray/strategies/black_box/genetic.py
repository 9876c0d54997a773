"""A genetic algorithm: crossover and mutation of the genotypes that were trained.

Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE Transactions on
Evolutionary Computation 2002, here with one objective.
"""

from __future__ import annotations

from typing import ClassVar

from optuna.samplers import NSGAIISampler
from pydantic import Field
from ray.tune.search import Searcher

from sase_ray.strategies.black_box.base import BlackBox
from sase_ray.strategies.black_box.encodings import optuna_search
from sase_ray.strategies.contract import SearchTask


class Genetic(BlackBox):
    """Genetic algorithm by Optuna's sampler."""

    name: ClassVar[str] = "genetic"
    source: ClassVar[str] = "Deb et al. 2002 (Optuna's NSGAIISampler)"
    summary: ClassVar[str] = "crossover and mutation of genotypes, each trained to the end"

    population: int = Field(default=8, ge=2, description="genotypes of one generation")

    def searcher(self, task: SearchTask) -> Searcher:
        """Return a searcher that draws from Optuna's sampler."""
        sampler = NSGAIISampler(population_size=self.population, seed=task.job.seed)
        return optuna_search(sampler, task.warm_start, task.job.space)
