"""Base class of searches by shared weights."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from pydantic import Field

from sase_ray.results.history import History
from sase_ray.strategies.contract import SearchTask, check_budget
from sase_ray.strategies.one_shot.base import OneShot
from search_spaces.errors import UserError
from search_spaces.genotype import Ranking
from search_spaces.mixture import Mixture
from search_spaces.network import Supernet
from trainables.metrics import SHARED_LOSS
from trainables.one_shot.algorithm import OneShotAlgorithm, StepCost
from trainables.one_shot.shared_weights import SharedWeights
from trainables.one_shot.trainable import STATISTICS_BATCHES
from trainables.training.cost import samples_of_forward
from trainables.training.loop import Batch, Trainer
from trainables.training.protocol import TrainingProtocol


class SharedWeightsSearch(OneShot):
    """A search that trains shared weights, and then ranks sampled candidates by them.

    It has no answer before the candidates are ranked: a search that diverges has failed.
    """

    reserve: float = Field(
        default=0.2, gt=0, lt=1, description="share of the budget that ranks the candidates"
    )

    def ranks_by(self, task: SearchTask) -> str:
        """Return the loss of a candidate with the shared weights."""
        return SHARED_LOSS

    def check(self, task: SearchTask) -> None:
        """Reject also a budget whose reserve is not enough to evaluate one candidate."""
        super().check(task)
        data = task.job.data
        read = STATISTICS_BATCHES * min(self.batch_size, len(data.train)) + len(data.validation)
        needed = math.ceil(samples_of_forward(read) / self.reserve)
        check_budget(task, needed, f"a search that keeps {self.reserve:g} of it for one candidate")

    def conclude(self, history: History, task: SearchTask) -> Ranking:
        """Return the candidates by their losses with the shared weights.

        Raises:
            UserError: The search diverged before it evaluated any, or all of them diverged.
        """
        ranking = history.last_ranking()
        last = history.evaluations[-1]
        if last["diverged"]:
            raise UserError(f"the search diverged before it ranked candidates: {last['reason']}")
        if not math.isfinite(ranking[0][1]):
            raise UserError("no candidate has a finite loss with the shared weights")
        return ranking


class SampledAlgorithm(OneShotAlgorithm):
    """Training of shared weights on drawn mixtures, without architecture parameters."""

    step_cost = StepCost(passes=1)
    is_stochastic = True
    halves_data = False

    def __init__(self, settings: SharedWeightsSearch, protocol: TrainingProtocol) -> None:
        self.protocol = protocol
        self.reserve = settings.reserve

    def start(self, supernet: Supernet, trainer: Trainer, generator: torch.Generator) -> None:
        """Draw the candidate that represents the search until the candidates are ranked."""
        self.space = supernet.space
        self.generator = generator
        self.progress = 0.0
        self.first = self.space.sample(random.Random(generator.initial_seed()))

    def begin_step(self, progress: float) -> None:
        """Store the progress of the search."""
        self.progress = progress

    def central_mixture(self) -> Mixture:
        """Return the first candidate, as no mixture is known to be better than another."""
        return Mixture.of(self.first, self.space)

    def architecture_step(self, train: Batch, validation: Batch) -> None:
        """Do nothing: there are no architecture parameters."""

    def ranking(self, count: int) -> Ranking:
        """Return one candidate with a score of NaN, as none is evaluated before the end."""
        return [(self.first, float("nan"))]

    def conclude(self, count: int, shared: SharedWeights) -> Ranking:
        """Rank candidates drawn uniformly."""
        rng = random.Random(int(torch.randint(2**62, (), generator=self.generator)))
        return shared.rank(lambda: self.space.sample(rng), count)

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state: the trainable stores the generator."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore nothing."""
