"""The contract of a one-shot algorithm: it decides on the weights of a supernet's operations."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from search_spaces.genotype import Genotype
from search_spaces.network import NetworkSpec, Supernet
from search_spaces.space import SearchSpace
from search_spaces.super_block import Mixture
from trainables.protocol import TrainingProtocol
from trainables.training import Batch, Evaluation, Trainer

Ranking = list[tuple[Genotype, float]]
"""Genotypes with scores, best first. Scores of one ranking compare with each other only."""


@dataclass(frozen=True)
class StepCost:
    """Samples that one step of a search sees, each forward-backward pass counted.

    Attributes:
        passes: forward-backward passes over one batch in a step, the weight step's included.
    """

    passes: int

    def samples(self, batch_size: int) -> int:
        """Return the samples of one step."""
        return self.passes * batch_size


class OneShotAlgorithm(ABC):
    """One search inside one supernet. Its life, in order:

    1. `protocol` says how the supernet's weights are trained, `step_cost` what a step costs.
    2. `build_supernet`; override to change the blocks (partial channels, say).
    3. `start`: make the architecture parameters and their optimiser.
    4. each epoch `begin_epoch`, and for each step `architecture_step`, then one weight step by
       the training loop on `weight_parameters` with the weights that `mixture` gives.
    5. after each epoch `ranking` and `report`, for the curves.
    6. at the end `conclude`: the ranking that the search is judged by.

    `state_dict` and `load_state_dict` carry the algorithm through a checkpoint. An algorithm is
    handed to a worker before `start`, so its constructor keeps settings only.
    """

    protocol: TrainingProtocol
    step_cost: StepCost

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

    def begin_epoch(self, progress: float) -> None:  # noqa: B027
        """Prepare an epoch; `progress` is the share of the budget used, 0 to 1."""

    @abstractmethod
    def mixture(self) -> Mixture:
        """Return the weights for one forward pass, differentiable if they are learned."""

    @abstractmethod
    def architecture_step(self, train: Batch, validation: Batch) -> None:
        """Step the architecture parameters; `train` is the batch of the coming weight step."""

    @abstractmethod
    def ranking(self, count: int) -> Ranking:
        """Return the `count` best genotypes by what is known now, best first."""

    def conclude(self, count: int, validate: Callable[[Mixture], Evaluation]) -> Ranking:
        """Return the final ranking; `validate` evaluates the supernet on the validation set."""
        return self.ranking(count)

    def report(self) -> dict[str, Any]:
        """Return plain values to record after an epoch, e.g. `alpha`: variable to probabilities."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values from which `load_state_dict` goes on."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, after `start`."""


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
