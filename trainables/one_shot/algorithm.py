"""The contract of a one-shot algorithm: it decides on the weights of a supernet's operations."""

from __future__ import annotations

import heapq
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from search_spaces.genotype import Genotype, Ranking
from search_spaces.mixture import Mixture
from search_spaces.network import NetworkSpec, Supernet
from search_spaces.space import SearchSpace
from trainables.metrics import Metric, declare
from trainables.one_shot.shared_weights import SharedWeights
from trainables.training.loop import Batch, Trainer
from trainables.training.protocol import TrainingProtocol

LARGEST_RATE = 0.1
"""Bound of a learning rate of architecture parameters that follows from a travel."""

declare(Metric("travel", None), Metric("travel_max", None))


@dataclass(frozen=True)
class StepCost:
    """Samples that the steps of a search cost, each pass over a batch counted.

    Attributes:
        passes: passes over one batch in a step, the weight step's included. One without a
            backward pass counts as `FORWARD_SHARE` of one.
        warmup: share of the steps, the first ones, that train the weights alone: one pass each.
    """

    passes: int | Fraction
    warmup: float = 0.0

    def warm_steps(self, total: int) -> int:
        """Return how many of the first `total` steps train the weights alone."""
        return int(self.warmup * total)

    def samples(self, batch_size: int, steps: int, total: int) -> int:
        """Return the samples of the first `steps` of `total` steps, rounded up."""
        warm = min(steps, self.warm_steps(total))
        return math.ceil(batch_size * (warm + self.passes * (steps - warm)))

    def steps(self, batch_size: int, budget: int) -> int:
        """Return the number of steps that a budget of samples pays for."""
        share = self.warmup + (1 - self.warmup) * self.passes
        steps = int(budget / (batch_size * share)) + 2  # rounding favours warm-up by a step
        while self.samples(batch_size, steps, steps) > budget:
            steps -= 1
        return steps


class OneShotAlgorithm(ABC):
    """One search inside one supernet.

    Its life, in order:

    1. `protocol` says how the supernet's weights are trained, `step_cost` what a step costs.
    2. `build_supernet`; override to change the blocks (partial channels, say).
    3. `start`: make the architecture parameters and their optimiser.
    4. each step `begin_step`, then (after the warm-up) `architecture_step`, then one weight step by
       the training loop on `weight_parameters` with the weights that `mixture` gives.
    5. after each epoch `ranking` and `report`, for the curves.
    6. at the end `conclude`: the ranking that the search is judged by. A share `reserve` of the
       budget is kept back for it.

    Where `is_stochastic`, the mixture changes from step to step, and the running statistics are
    nobody's: they are estimated anew before the supernet is evaluated. Where `halves_data` is
    False, there are no architecture parameters to train, and all training images are the weights'.
    Where `stops_when_sharp`, the search ends early on the sign of collapse that
    `trainables.one_shot.collapse` describes.

    `state_dict` and `load_state_dict` carry the algorithm through a checkpoint. An algorithm is
    handed to a worker before `start`, so its constructor keeps settings only.
    """

    protocol: TrainingProtocol
    step_cost: StepCost
    reserve: float = 0.0
    is_stochastic: bool = False
    halves_data: bool = True
    stops_when_sharp: bool = False

    def build_supernet(self, spec: NetworkSpec, space: SearchSpace, seed: int) -> Supernet:
        """Build the supernet over `space`."""
        return Supernet(spec, space, seed=seed)

    @abstractmethod
    def start(self, supernet: Supernet, trainer: Trainer, generator: torch.Generator) -> None:
        """Make the architecture parameters.

        Args:
            supernet: on its device.
            trainer: steps its weights, by `mixture`.
            generator: source of all randomness, on the CPU; saved with the checkpoint.
        """

    def weight_parameters(self, supernet: Supernet) -> Sequence[torch.nn.Parameter]:
        """Return the parameters that the weight step trains: all, unless overridden."""
        return list(supernet.parameters())

    def begin_step(self, progress: float) -> None:  # noqa: B027
        """Prepare a step; `progress` is the share of the steps that have been taken, 0 to 1.

        Temperatures, dropout rates and pruning follow it, so that they depend on how far the
        search is, and not on how many epochs its budget makes.
        """

    @abstractmethod
    def mixture(self) -> Mixture:
        """Return the weights for one forward pass, differentiable if they are learned."""

    def central_mixture(self) -> Mixture:
        """Return the weights by which the supernet is evaluated: `mixture` without its chance."""
        return self.mixture()

    @property
    def architecture(self) -> Sequence[torch.Tensor]:
        """The parameters in which the dominant eigenvalue is looked for; none where there are none.

        `central_mixture` depends on them.
        """
        return ()

    @abstractmethod
    def architecture_step(self, train: Batch, validation: Batch) -> None:
        """Step the architecture parameters; `train` is the batch of the coming weight step."""

    @abstractmethod
    def ranking(self, count: int) -> Ranking:
        """Return the `count` best genotypes by what is known now, best first."""

    def conclude(self, count: int, shared: SharedWeights) -> Ranking:
        """Return the final ranking; `shared` judges genotypes within what is left of the budget."""
        return self.ranking(count)

    def score(self, genotypes: Sequence[Genotype], shared: SharedWeights) -> list[float]:
        """Return this search's opinion of any genotypes, higher is better.

        It is the negative loss that they have with the shared weights, unless overridden; of one
        whose loss is not finite, minus infinity.
        """
        return [-shared.loss(genotype) for genotype in genotypes]

    def report(self) -> dict[str, Any]:
        """Return plain values to record after an epoch.

        `alpha` holds for each variable the probabilities of its operations; `travel` and
        `travel_max` say how far the architecture parameters have moved, see `distances`.
        """
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values from which `load_state_dict` goes on."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, after `start`."""


def rate_of_travel(travel: float, trainer: Trainer, cost: StepCost) -> float:
    """Return the learning rate of architecture parameters that makes rate times steps `travel`.

    Adam moves a parameter by about its rate a step, so a rate without a number of steps says
    nothing: at 3e-4, DARTS' rate, alpha can move by 5.9 in the paper's 19,550 steps, and by 0.1 in
    300 steps. The rate is `LARGEST_RATE` at most: in a very short search, or where a paper's travel
    is long, one noisy step would decide.

    Args:
        travel: distance that a parameter can move at most, in its own unit.
        trainer: of the weights; it knows the steps of the search.
        cost: says how many of them are warm-up, in which architecture parameters rest.
    """
    steps = trainer.total_steps - cost.warm_steps(trainer.total_steps)
    return min(LARGEST_RATE, travel / max(1, steps))


def distances(
    parameters: Sequence[torch.Tensor], start: Sequence[torch.Tensor]
) -> dict[str, float]:
    """Return `travel` and `travel_max`: mean and largest |parameter - start|, over all entries."""
    moved = torch.cat(
        [(now.detach() - was).abs().flatten() for now, was in zip(parameters, start, strict=True)]
    )
    return {"travel": float(moved.mean()), "travel_max": float(moved.max())}


def best_by_sum(space: SearchSpace, scores: Sequence[Sequence[float]], count: int) -> Ranking:
    """Return the `count` genotypes with the largest sums of per-operation scores, exactly.

    Args:
        scores: for each variable of the space one score an operation, such as log-probabilities.
        count: how many.
    """
    best: list[tuple[float, tuple[str, ...]]] = [(0.0, ())]
    for variable, row in zip(space.variables, scores, strict=True):
        # The best sums over a prefix suffice: what comes after adds the same to each.
        extended = (
            (total + float(score), (*ops, op))
            for total, ops in best
            for op, score in zip(variable.choices, row, strict=True)
        )
        best = heapq.nlargest(count, extended, key=lambda item: item[0])
    return [(Genotype(ops), total) for total, ops in best]


def sums_of(
    space: SearchSpace, scores: Sequence[Sequence[float]], genotypes: Sequence[Genotype]
) -> list[float]:
    """Return for each genotype the sum of its operations' scores, as `best_by_sum` has them."""
    tables = [
        dict(zip(variable.choices, row, strict=True))
        for variable, row in zip(space.variables, scores, strict=True)
    ]
    return [
        float(sum(table[op] for table, op in zip(tables, genotype.ops, strict=True)))
        for genotype in genotypes
    ]
