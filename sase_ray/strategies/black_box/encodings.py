"""A search space in the terms of Ray Tune and of Optuna."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState
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


class _OptunaSearch(OptunaSearch):
    """Ray Tune's Optuna searcher, which reports to Optuna which trials were stopped early.

    Ray Tune's own reports the last loss of every trial as that of a complete one, whatever epoch it
    is of. Here, only a trial that was trained to its end is complete; another is pruned at its last
    epoch, and one that diverged is pruned at none. Optuna's TPE ranks pruned trials after all
    complete ones: those of a later epoch first, and among those of one epoch by the loss.
    """

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: of a trial only its last epoch counts."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Report a trial's end, as complete, pruned or failed."""
        if result is None or error or self.metric not in result or self._ot_study is None:
            super().on_trial_complete(trial_id, result, error)
            return
        lost = result["diverged"]
        if result["finished"] and not lost:
            super().on_trial_complete(trial_id, result, error)
            return
        trial = self._ot_trials[trial_id]
        if not lost:
            trial.report(result[self.metric], step=result["epoch"])
        self._ot_study.tell(trial, state=TrialState.PRUNED)
        self._completed_trials.add(trial_id)


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
    return _OptunaSearch(sampler=sampler, points_to_evaluate=points)
