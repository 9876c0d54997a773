"""A search space in the terms of Ray Tune and of Optuna."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from search_spaces.genotype import Genotype
from search_spaces.space import SearchSpace


def to_param_space(space: SearchSpace) -> dict[str, Any]:
    """Return the space as Ray Tune's `param_space`: variable name to a choice."""
    return {variable.name: tune.choice(list(variable.choices)) for variable in space.variables}


def to_distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Return the space as Optuna's distributions: variable name to a categorical."""
    return {
        variable.name: CategoricalDistribution(variable.choices) for variable in space.variables
    }


def optuna_search(
    sampler: BaseSampler, warm_start: Sequence[Genotype], space: SearchSpace
) -> OptunaSearch:
    """Return Ray Tune's Optuna searcher with a seeded sampler.

    Args:
        sampler: of Optuna, seeded.
        warm_start: genotypes to suggest first.
        space: they are checked against it.
    """
    # Optuna tells of every study it makes, each of which is a search of ours.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    points = [space.to_config(genotype) for genotype in warm_start] or None
    return OptunaSearch(sampler=sampler, points_to_evaluate=points)
