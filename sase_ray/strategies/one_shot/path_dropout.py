"""One-shot search: a supernet with path dropout, then candidates ranked with shared weights.

Bender et al., "Understanding and Simplifying One-Shot Architecture Search", ICML 2018.
"""

from __future__ import annotations

import random
from typing import Any, ClassVar

import torch
from pydantic import Field

from sase_ray.strategies.contract import OneShot, SearchTask
from search_spaces.network import Supernet
from search_spaces.super_block import Mixture
from trainables.one_shot.algorithm import OneShotAlgorithm, Ranking, StepCost
from trainables.one_shot.shared_weights import SharedWeights
from trainables.training.loop import Batch, Trainer
from trainables.training.protocol import TrainingProtocol


class SharedWeightsSearch(OneShot):
    """A search that trains shared weights, and then ranks sampled candidates by them."""

    reserve: float = Field(
        default=0.2, gt=0, lt=1, description="share of the budget that ranks the candidates"
    )

    def score(self, task: SearchTask) -> str:
        """Candidates are ranked with shared weights."""
        return "val_loss with shared weights (lower is better)"


class OneShotSearch(SharedWeightsSearch):
    """Path dropout whose rate rises linearly from zero (section 3.2)."""

    name: ClassVar[str] = "one-shot"
    source: ClassVar[str] = "Bender et al. 2018"
    summary: ClassVar[str] = "supernet with path dropout, then candidates by shared weights"

    dropout: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="r at the end: each of an edge's k operations is dropped with r^(1/k)",
    )

    def algorithm(self, task: SearchTask) -> OneShotAlgorithm:
        """Return the algorithm of path dropout."""
        return PathDropout(self, self.weight_protocol(task), self.dropout)


class SampledAlgorithm(OneShotAlgorithm):
    """Trains shared weights on mixtures that are drawn, and learns nothing of architectures."""

    step_cost = StepCost(passes=1)
    is_stochastic = True
    halves_data = False

    def __init__(self, settings: SharedWeightsSearch, protocol: TrainingProtocol) -> None:
        self.protocol = protocol
        self.reserve = settings.reserve

    def start(self, supernet: Supernet, trainer: Trainer, generator: torch.Generator) -> None:
        """Draw the candidate that stands for the search until the candidates are ranked."""
        self.space = supernet.space
        self.generator = generator
        self.progress = 0.0
        self.first = self.space.sample(random.Random(generator.initial_seed()))

    def begin_epoch(self, progress: float) -> None:
        """Note how far the search is."""
        self.progress = progress

    def central_mixture(self) -> Mixture:
        """Return the first candidate: no mixture is better known than any other."""
        return Mixture.of(self.first, self.space)

    def architecture_step(self, train: Batch, validation: Batch) -> None:
        """Do nothing: there are no architecture parameters."""

    def ranking(self, count: int) -> Ranking:
        """Return one candidate, unjudged: until the end, nothing is known of any."""
        return [(self.first, float("nan"))]

    def conclude(self, count: int, shared: SharedWeights) -> Ranking:
        """Rank candidates drawn uniformly."""
        rng = random.Random(int(torch.randint(2**62, (), generator=self.generator)))
        return shared.rank(lambda: self.space.sample(rng), count)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the generator is the trainable's."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore nothing."""


class PathDropout(SampledAlgorithm):
    """Drops operations of each edge for a batch; those that stay are averaged.

    The paper draws anew for every 32 images of a batch (ghost batches), here all share a draw.
    An edge keeps one operation at least, drawn evenly: without any, the block would be cut. The
    mean takes the place of the paper's sum, so that gates keep their scale when few are left.
    """

    def __init__(self, settings: OneShotSearch, protocol: TrainingProtocol, dropout: float) -> None:
        super().__init__(settings, protocol)
        self.dropout = dropout

    def drop_probability(self, operations: int) -> float:
        """Return the probability with which each of an edge's operations is dropped now."""
        return float(self.progress * self.dropout ** (1 / operations))

    def mixture(self) -> Mixture:
        """Draw which operations stay."""
        edges = []
        for variable in self.space.variables:
            count = len(variable.choices)
            chances = torch.rand(count, generator=self.generator)
            kept = (chances >= self.drop_probability(count)).nonzero().flatten().tolist()
            if not kept:
                kept = [int(torch.randint(count, (), generator=self.generator))]
            edges.append(dict.fromkeys(kept, 1 / len(kept)))
        return Mixture(edges)
