"""One-shot search: a supernet with path dropout, then candidates ranked with shared weights.

Bender et al., "Understanding and Simplifying One-Shot Architecture Search", ICML 2018.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from sase_ray.strategies.contract import SearchTask
from sase_ray.strategies.one_shot.sampled import SampledAlgorithm, SharedWeightsSearch
from search_spaces.mixture import Mixture
from trainables.one_shot.algorithm import OneShotAlgorithm
from trainables.training.protocol import TrainingProtocol


class OneShotSearch(SharedWeightsSearch):
    """One-shot search by path dropout whose rate rises linearly from zero (section 3.2)."""

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


class PathDropout(SampledAlgorithm):
    """Path dropout: operations of each edge are dropped for a batch, and the others averaged.

    The paper draws again for every 32 images of a batch (ghost batches), here all share a draw.
    An edge keeps at least one operation, drawn uniformly: without any, the block would be cut. The
    mean replaces the paper's sum, so that gates keep their scale when few operations are left.
    """

    def __init__(self, settings: OneShotSearch, protocol: TrainingProtocol, dropout: float) -> None:
        super().__init__(settings, protocol)
        self.dropout = dropout

    def drop_probability(self, operations: int) -> float:
        """Return the current probability that an operation of an edge is dropped."""
        return float(self.progress * self.dropout ** (1 / operations))

    def mixture(self) -> Mixture:
        """Draw the operations that are kept."""
        edges = []
        for variable in self.space.variables:
            count = len(variable.choices)
            chances = torch.rand(count, generator=self.generator)
            kept = (chances >= self.drop_probability(count)).nonzero().flatten().tolist()
            if not kept:
                kept = [int(torch.randint(count, (), generator=self.generator))]
            edges.append(dict.fromkeys(kept, 1 / len(kept)))
        return Mixture(edges)
