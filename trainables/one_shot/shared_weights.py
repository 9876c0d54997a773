"""Scores of genotypes with the weights of a supernet, in place of weights of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from search_spaces.genotype import Genotype
from search_spaces.mixture import Mixture
from search_spaces.network import Supernet
from trainables.data import Batches
from trainables.tasks.classification import CLASSIFICATION
from trainables.tasks.contract import Task
from trainables.training.cost import samples_of_forward
from trainables.training.loop import Batch, Diverged, Evaluation, evaluate
from trainables.training.norm_statistics import estimate_statistics
from trainables.training.protocol import TrainingProtocol

PATIENCE = 100
"""Number of known proposals in a row after which no more are requested."""


class SharedWeights:
    """Evaluation of genotypes by a supernet's weights (Bender et al. 2018, section 3.4).

    The running statistics of the batch norms belong to the mixture that was trained, so they are
    estimated again for each genotype, from training images, and restored afterwards. Every image
    of a pass is charged as a forward pass (`trainables.training.cost`).

    Args:
        supernet: Supernet, on its device.
        protocol: Protocol that sets the precision.
        statistics: Batches of training images from which running statistics are estimated.
        validation: Batches on which genotypes are evaluated.
        device: Device of the supernet.
        budget: Samples that may be spent; `evaluate_genotype` itself does not check it.
        task: Task by whose metrics genotypes are evaluated.
    """

    def __init__(
        self,
        supernet: Supernet,
        protocol: TrainingProtocol,
        statistics: Sequence[Batch],
        validation: Batches,
        device: torch.device,
        budget: int = 0,
        task: Task = CLASSIFICATION,
    ) -> None:
        self.supernet = supernet
        self.protocol = protocol
        self.statistics = statistics
        self.validation = validation
        self.device = device
        self.budget = budget
        self.task = task
        self.samples = 0
        self._screening = validation.first()

    def cost(self, *, screening: bool = False) -> int:
        """Return the cost of one call of `evaluate_genotype`, in samples."""
        images = (
            sum(len(labels) for _, labels in self._screening)
            if screening
            else self.validation.samples_per_epoch
        )
        return samples_of_forward(images + sum(len(labels) for _, labels in self.statistics))

    def evaluate_genotype(self, genotype: Genotype, *, screening: bool = False) -> Evaluation:
        """Return the task's metrics of a genotype on the validation images.

        Args:
            genotype: Genotype of the supernet's space.
            screening: Whether only the first batch of the validation images is used.

        Raises:
            Diverged: The loss is not finite.
        """
        return self.evaluate(Mixture.of(genotype, self.supernet.space), screening=screening)

    def loss(self, genotype: Genotype, *, screening: bool = False) -> float:
        """Return the loss of a genotype on the same images; infinity where it is not finite."""
        try:
            return self.evaluate_genotype(genotype, screening=screening).loss
        except Diverged:
            return math.inf

    def evaluate(self, mixture: Mixture, *, screening: bool = False) -> Evaluation:
        """Return the same metrics as `evaluate_genotype`, for any mixture."""
        self.samples += self.cost(screening=screening)
        network = _Fixed(self.supernet, mixture)
        # Buffers of batch norms, and of all other running estimates of a block.
        before = [(buffer, buffer.clone()) for buffer in network.buffers()]
        try:
            estimate_statistics(network, self.statistics, self.protocol, self.device)
            batches = self._screening if screening else self.validation
            return evaluate(network, batches, self.protocol, self.device, self.task)
        finally:
            for buffer, value in before:
                buffer.copy_(value)

    def rank(self, propose: Callable[[], Genotype], count: int) -> list[tuple[Genotype, float]]:
        """Rank as many proposed genotypes as the budget allows, by validation loss.

        Half of the budget screens genotypes on one batch, the other half evaluates the best of them
        on all validation images (Li and Talwalkar 2019, section 3.2; ENAS, section 2.3). Where
        the budget is enough to evaluate the same number on all images, there is no screening.

        Args:
            propose: Function that returns a genotype; a repeated one is not evaluated again.
            count: Largest number of genotypes to return.

        Returns:
            Genotypes with their losses in nats, the smallest first. If the budget is not enough
            for one, only the first proposal, not evaluated: its loss is not a number.
        """
        whole, screening = self.cost(), self.cost(screening=True)
        evaluated = max(1, self.budget // 2 // whole)
        screened = (self.budget - evaluated * whole) // screening
        if self.budget // whole >= screened:
            evaluated = screened = self.budget // whole
        if self.budget < whole:
            return [(propose(), math.nan)]
        candidates = _distinct(propose, max(evaluated, screened))
        if len(candidates) * whole <= self.budget:  # fewer were proposed than could be screened
            evaluated = len(candidates)
        if evaluated < len(candidates):
            candidates = [g for g, _ in self._sorted(candidates, screening=True)][:evaluated]
        return self._sorted(candidates)[:count]

    def _sorted(
        self, candidates: list[Genotype], *, screening: bool = False
    ) -> list[tuple[Genotype, float]]:
        losses = [self.loss(genotype, screening=screening) for genotype in candidates]
        return sorted(zip(candidates, losses, strict=True), key=lambda pair: pair[1])


def _distinct(propose: Callable[[], Genotype], count: int) -> list[Genotype]:
    """Propose until there are `count` different genotypes, or no new ones are proposed."""
    found: dict[Genotype, None] = {}
    misses = 0
    while len(found) < count and misses < PATIENCE:
        genotype = propose()
        misses = misses + 1 if genotype in found else 0
        found[genotype] = None
    return list(found)


class _Fixed(nn.Module):
    """A supernet with a fixed mixture, as a network whose only input is images."""

    def __init__(self, supernet: Supernet, mixture: Mixture) -> None:
        super().__init__()
        self.supernet = supernet
        self.mixture = mixture
        self.train(supernet.training)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.supernet(x, self.mixture)
        return logits
