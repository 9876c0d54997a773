"""The contract of a one-shot algorithm, which sets the weights of a supernet's operations."""

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
from trainables.one_shot.collapse import INSPECTIONS, ITERATIONS
from trainables.one_shot.shared_weights import SharedWeights
from trainables.training.loop import Batch, Trainer
from trainables.training.protocol import TrainingProtocol

LARGEST_RATE = 0.1
"""Upper bound of a learning rate of architecture parameters that follows from a travel."""

declare(Metric("travel", None), Metric("travel_max", None))


@dataclass(frozen=True)
class StepCost:
    """Cost of the steps of a search in samples; each pass over a batch is counted.

    Attributes:
        passes: Passes over one batch in a step, including those of the weight step. A pass
            without a backward pass counts as `FORWARD_SHARE` of one.
        warmup: Share of the steps, from the first, that train only the weights: one pass each.
    """

    passes: int | Fraction
    warmup: float = 0.0

    def warm_steps(self, total: int) -> int:
        """Return how many of the first `total` steps train only the weights."""
        return int(self.warmup * total)

    def samples(self, batch_size: int, steps: int, total: int) -> int:
        """Return the samples of the first `steps` of `total` steps, rounded up."""
        warm = min(steps, self.warm_steps(total))
        return math.ceil(batch_size * (warm + self.passes * (steps - warm)))

    def steps(self, batch_size: int, budget: int) -> int:
        """Return the number of steps that a budget of samples pays for."""
        share = self.warmup + (1 - self.warmup) * self.passes
        steps = int(budget / (batch_size * share)) + 2  # rounding adds up to one step of warm-up
        while self.samples(batch_size, steps, steps) > budget:
            steps -= 1
        return steps


class OneShotAlgorithm(ABC):
    """Base class of the one-shot algorithms: one search inside one supernet.

    Its life, in order:

    1. `protocol` sets the training of the supernet's weights, `step_cost` the cost of a step.
    2. `build_supernet`: override it to change the blocks (to partial channels, for example).
    3. `start` creates the architecture parameters and their optimiser.
    4. Each step calls `begin_step`, then (after the warm-up) `architecture_step`; then the
       training loop takes one weight step on `weight_parameters`, with the weights of `mixture`.
    5. After each epoch, `ranking` and `report` are called, for the curves.
    6. At the end, `conclude` returns the ranking that the search is scored by. A share `reserve`
       of the budget is kept back for it.

    Where `is_stochastic` is set, the mixture changes from step to step, so the running statistics
    belong to no mixture: they are estimated again before the supernet is evaluated. Where
    `halves_data` is False, there are no architecture parameters to train, and all training images
    are used for the weights. Where `stops_when_sharp` is set, the search ends early at the sign of
    collapse that `trainables.one_shot.collapse` describes.

    `state_dict` and `load_state_dict` save and restore the algorithm in a checkpoint. An algorithm
    is passed to a worker before `start`, so its constructor only stores settings.
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

    def cost_of_inspection(self, batch_size: int) -> int:
        """Return the samples of one inspection of the sharpness, where the search may end by it.

        The gradient and each product with the Hessian count as one pass over a batch.
        """
        return (1 + ITERATIONS) * batch_size if self.stops_when_sharp else 0

    def steps(self, batch_size: int, budget: int) -> int:
        """Return the number of steps that a budget pays for, beside `reserve` and inspections."""
        spent_on_steps = (
            budget - int(self.reserve * budget) - INSPECTIONS * self.cost_of_inspection(batch_size)
        )
        return self.step_cost.steps(batch_size, spent_on_steps)

    @abstractmethod
    def start(self, supernet: Supernet, trainer: Trainer, generator: torch.Generator) -> None:
        """Create the architecture parameters.

        Args:
            supernet: Supernet, on its device.
            trainer: Trainer of its weights, by `mixture`.
            generator: Source of all randomness, on the CPU; saved with the checkpoint.
        """

    def weight_parameters(self, supernet: Supernet) -> Sequence[torch.nn.Parameter]:
        """Return the parameters that the weight step trains: all, unless overridden."""
        return list(supernet.parameters())

    def begin_step(self, progress: float) -> None:  # noqa: B027
        """Prepare a step; `progress` is the share of the steps that have been taken, 0 to 1.

        Temperatures, dropout rates and pruning follow it, so that they depend on the progress of
        the search, and not on the number of epochs of its budget.
        """

    @abstractmethod
    def mixture(self) -> Mixture:
        """Return the weights for one forward pass, differentiable if they are learned."""

    def central_mixture(self) -> Mixture:
        """Return the weights for evaluating the supernet: `mixture` without its randomness."""
        return self.mixture()

    @property
    def architecture(self) -> Sequence[torch.Tensor]:
        """Parameters of the Hessian whose dominant eigenvalue is measured; empty if there are none.

        `central_mixture` depends on them.
        """
        return ()

    @abstractmethod
    def architecture_step(self, train: Batch, validation: Batch) -> None:
        """Step the architecture parameters; `train` is the batch of the coming weight step."""

    @abstractmethod
    def ranking(self, count: int) -> Ranking:
        """Return the `count` best genotypes by the present state, best first."""

    def conclude(self, count: int, shared: SharedWeights) -> Ranking:
        """Return the final ranking; `shared` evaluates genotypes within the rest of the budget."""
        return self.ranking(count)

    def score(self, genotypes: Sequence[Genotype], shared: SharedWeights) -> list[float]:
        """Return this search's scores of any genotypes; higher is better.

        Unless overridden, a score is the negative loss of a genotype with the shared weights, and
        minus infinity where that loss is not finite.
        """
        return [-shared.loss(genotype) for genotype in genotypes]

    def report(self) -> dict[str, Any]:
        """Return plain values to record after an epoch.

        `alpha` holds for each variable the probabilities of its operations; `travel` and
        `travel_max` report how far the architecture parameters have moved, see `distances`.
        """
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values from which `load_state_dict` resumes."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned, after `start`."""


def rate_of_travel(travel: float, trainer: Trainer, cost: StepCost) -> float:
    """Return the learning rate of architecture parameters by which rate times steps is `travel`.

    Adam moves a parameter by about its rate per step, so a rate has no meaning without a number of
    steps: at 3e-4, the rate of DARTS, alpha can move by 5.9 in the paper's 19,550 steps, and by 0.1
    in 300 steps. The rate is at most `LARGEST_RATE`: in a very short search, or where a paper's
    travel is long, one noisy step would decide.

    Args:
        travel: Largest distance that a parameter can move, in its own unit.
        trainer: Trainer of the weights; it knows the number of steps of the search.
        cost: Cost of the steps; it knows how many are warm-up, without architecture steps.
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
        scores: For each variable of the space one score per operation, such as log-probabilities.
        count: Number of genotypes.
    """
    best: list[tuple[float, tuple[str, ...]]] = [(0.0, ())]
    for variable, row in zip(space.variables, scores, strict=True):
        # The best sums over a prefix suffice: later variables add the same to each.
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
    """Return for each genotype the sum of its operations' scores, as in `best_by_sum`."""
    tables = [
        dict(zip(variable.choices, row, strict=True))
        for variable, row in zip(space.variables, scores, strict=True)
    ]
    return [
        float(sum(table[op] for table, op in zip(tables, genotype.ops, strict=True)))
        for genotype in genotypes
    ]
