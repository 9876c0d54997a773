"""Encodings of a search space for Ray Tune and for Optuna."""

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
    """Return the space as Ray Tune's `param_space`: each variable's name with its choice."""
    return {variable.name: tune.choice(list(variable.choices)) for variable in space.variables}


def to_distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Return the space as Optuna's distributions: each variable's name with a categorical one."""
    return {
        variable.name: CategoricalDistribution(variable.choices) for variable in space.variables
    }


class _OptunaSearch(OptunaSearch):
    """Ray Tune's Optuna searcher, which reports to Optuna which trials were stopped early.

    Ray Tune's own searcher reports the last loss of every trial as that of a complete one, at
    whatever epoch it was measured. Here, only a trial that was trained to its end is complete;
    others are pruned at their last epoch, and trials that diverged are pruned without any. Optuna's
    TPE ranks pruned trials after all complete ones: those of a later epoch first, and those of the
    same epoch by the loss.
    """

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: only the last epoch of a trial counts."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Report the end of a trial as complete, pruned or failed."""
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
        sampler: Seeded sampler of Optuna.
        warm_start: Genotypes to suggest first, which are checked against the space.
        space: Search space.
    """
    # Optuna logs every study that it creates, and each search here creates one.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    points = [space.to_config(genotype) for genotype in warm_start] or None
    return _OptunaSearch(sampler=sampler, points_to_evaluate=points)
