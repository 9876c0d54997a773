"""What genotypes are worth with the weights of a supernet, in place of weights of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from search_spaces.genotype import Genotype
from search_spaces.mixture import Mixture
from search_spaces.network import Supernet
from trainables.data import Batches
from trainables.tasks.classification import CLASSIFICATION
from trainables.tasks.contract import Task
from trainables.training.cost import samples_of_reading
from trainables.training.loop import Batch, Diverged, Evaluation, autocast, evaluate
from trainables.training.protocol import TrainingProtocol

PATIENCE = 100
"""Proposals in a row that are known already before no more are asked for."""


class SharedWeights:
    """Judges genotypes by a supernet's weights (Bender et al. 2018, section 3.4).

    The running statistics of the batch norms belong to the mixture that was trained, so they are
    estimated anew for each genotype, from training images, and put back afterwards. Every image of
    a pass is charged as one that is only read (`trainables.training.cost`).

    Args:
        supernet: on its device.
        protocol: says the precision.
        statistics: batches of training images that running statistics come from.
        validation: batches that genotypes are judged by.
        device: of the supernet.
        budget: samples that may be spent; `judge` itself does not look at it.
        task: whose metrics genotypes are judged by.
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
        """Return the samples that one `judge` costs."""
        judged = (
            sum(len(labels) for _, labels in self._screening)
            if screening
            else self.validation.samples_per_epoch
        )
        return samples_of_reading(judged + sum(len(labels) for _, labels in self.statistics))

    def judge(self, genotype: Genotype, *, screening: bool = False) -> Evaluation:
        """Return the task's metrics of a genotype on the validation images.

        Args:
            genotype: of the supernet's space.
            screening: look at the first batch of the validation images alone.

        Raises:
            Diverged: the loss is not finite.
        """
        return self.evaluate(Mixture.of(genotype, self.supernet.space), screening=screening)

    def loss(self, genotype: Genotype, *, screening: bool = False) -> float:
        """Return the loss of a genotype as `judge` does; infinity where it is not finite."""
        try:
            return self.judge(genotype, screening=screening).loss
        except Diverged:
            return math.inf

    def evaluate(self, mixture: Mixture, *, screening: bool = False) -> Evaluation:
        """Return what `judge` returns, of any mixture."""
        self.samples += self.cost(screening=screening)
        network = _Fixed(self.supernet, mixture)
        # Of batch norms, and whatever else a block keeps a running estimate of.
        before = [(buffer, buffer.clone()) for buffer in network.buffers()]
        try:
            # Dropout in the host must not move the generators that the search draws from.
            own = [self.device] if self.device.type == "cuda" else []
            with (
                torch.no_grad(),
                torch.random.fork_rng(own),
                autocast(self.protocol, self.device),
            ):
                update_bn((images for images, _ in self.statistics), network)
            batches = self._screening if screening else self.validation
            return evaluate(network, batches, self.protocol, self.device, self.task)
        finally:
            for buffer, value in before:
                buffer.copy_(value)

    def rank(self, propose: Callable[[], Genotype], count: int) -> list[tuple[Genotype, float]]:
        """Rank as many proposed genotypes as the budget pays for, by validation loss.

        Half of the budget screens genotypes on one batch, the other half judges the best of them
        on all validation images (Li and Talwalkar 2019, section 3.2; ENAS, section 2.3). Where
        the budget pays for judging as many on all images, there is no screening.

        Args:
            propose: returns a genotype; one that it returned before is not judged again.
            count: how many to return at most.

        Returns:
            Genotypes with their losses in nats, the smallest first. If the budget does not pay for
            one, the first proposal, unjudged: its loss is not a number.
        """
        whole, screening = self.cost(), self.cost(screening=True)
        judged = max(1, self.budget // 2 // whole)
        screened = (self.budget - judged * whole) // screening
        if self.budget // whole >= screened:
            judged = screened = self.budget // whole
        if self.budget < whole:
            return [(propose(), math.nan)]
        candidates = _distinct(propose, max(judged, screened))
        if judged < len(candidates):
            candidates = [g for g, _ in self._sorted(candidates, screening=True)][:judged]
        return self._sorted(candidates)[:count]

    def _sorted(
        self, candidates: list[Genotype], *, screening: bool = False
    ) -> list[tuple[Genotype, float]]:
        losses = [self.loss(genotype, screening=screening) for genotype in candidates]
        return sorted(zip(candidates, losses, strict=True), key=lambda pair: pair[1])


def _distinct(propose: Callable[[], Genotype], count: int) -> list[Genotype]:
    """Propose until there are `count` different genotypes, or nothing new comes any more."""
    found: dict[Genotype, None] = {}
    misses = 0
    while len(found) < count and misses < PATIENCE:
        genotype = propose()
        misses = misses + 1 if genotype in found else 0
        found[genotype] = None
    return list(found)


class _Fixed(nn.Module):
    """A supernet with a mixture, as a network of images alone."""

    def __init__(self, supernet: Supernet, mixture: Mixture) -> None:
        super().__init__()
        self.supernet = supernet
        self.mixture = mixture
        self.train(supernet.training)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.supernet(x, self.mixture)
        return logits
