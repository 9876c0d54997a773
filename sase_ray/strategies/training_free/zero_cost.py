"""Zero-cost search: random genotypes, the best by a score of their untrained networks.

Mellor, Turner, Storkey and Crowley, "Neural Architecture Search without Training", ICML 2021,
algorithm 1: https://arxiv.org/abs/2006.04647. The scores are in `trainables.scores`.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, JsonValue, model_validator

from sase_ray.results.families import Family
from sase_ray.results.history import History
from sase_ray.strategies.black_box.encodings import optuna_search, to_param_space
from sase_ray.strategies.black_box.random import WithoutReplacement
from sase_ray.strategies.contract import Plan, SearchTask, Strategy, check_budget
from search_spaces.genotype import Ranking
from trainables.scores.catalogue import make_score
from trainables.scores.contract import Score
from trainables.scores.trainable import ScoreTrainable


class ZeroCost(Strategy):
    """Random search by a training-free score: a trial is one untrained network."""

    name: ClassVar[str] = "zero-cost"
    family: ClassVar[Family] = "training-free"
    source: ClassVar[str] = "Mellor et al. 2021, algorithm 1"
    summary: ClassVar[str] = "genotypes drawn uniformly, untrained networks scored on one batch"

    score: str = Field(default="grad-norm", description="name of a training-free score")
    score_options: dict[str, JsonValue] = Field(default_factory=dict)
    batch_size: int = Field(default=64, ge=1)
    genotypes: int = Field(
        default=1000, ge=1, description="most genotypes to score, if the budget pays for as many"
    )

    @model_validator(mode="after")
    def _score_exists(self) -> ZeroCost:
        self._score()
        return self

    def _score(self) -> Score:
        return make_score(self.score, self.score_options)

    def _batch_size(self, task: SearchTask) -> int:
        return min(self.batch_size, len(task.job.data.train))

    def metric(self, task: SearchTask) -> str:
        """Return the name of the score's metric."""
        return self._score().metric.name

    def check(self, task: SearchTask) -> None:
        """Reject a budget that is not enough for the score of one genotype."""
        needed = self._score().samples(self._batch_size(task))
        check_budget(task, needed, "the score of one genotype")

    def plan(self, task: SearchTask) -> Plan:
        """Run `ScoreTrainable` on genotypes drawn without replacement."""
        score, batch_size, space = self._score(), self._batch_size(task), task.job.space
        return Plan(
            trainable=ScoreTrainable,
            parameters={"job": task.job, "score": score, "batch_size": batch_size},
            param_space=to_param_space(space),
            searcher=optuna_search(WithoutReplacement(space, task.job.seed), (), space),
            samples_per_epoch=score.samples(batch_size),
            first_epochs=1,
            max_trials=min(self.genotypes, space.size),
        )

    def conclude(self, history: History, task: SearchTask) -> Ranking:
        """Rank the genotypes by their scores."""
        return history.ranked_trials()
