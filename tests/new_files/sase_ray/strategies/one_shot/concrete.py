"""Search with operations weighed by a concrete distribution.

Maddison, Mnih and Teh, "The Concrete Distribution", ICLR 2017, https://arxiv.org/abs/1611.00712;
in architecture search: Xie et al., "SNAS", ICLR 2019.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sase_ray.strategies.contract import SearchTask
from sase_ray.strategies.one_shot.darts import DARTS, DARTSAlgorithm
from search_spaces.mixture import Mixture
from search_spaces.network import Supernet
from trainables.one_shot.algorithm import OneShotAlgorithm
from trainables.training.loop import Trainer
from trainables.training.protocol import TrainingProtocol


class Concrete(DARTS):
    """First-order DARTS whose mixture is drawn for every batch."""

    name: ClassVar[str] = "concrete"
    source: ClassVar[str] = "Maddison et al. 2017; Xie et al. 2019"
    summary: ClassVar[str] = "DARTS with weights drawn from a concrete distribution"

    temperature: float = Field(default=1.0, gt=0, description="of the distribution")

    def algorithm(self, task: SearchTask) -> OneShotAlgorithm:
        """Return the algorithm that draws its mixtures."""
        return ConcreteAlgorithm(self, self.weight_protocol(task))


class ConcreteAlgorithm(DARTSAlgorithm):
    """DARTS with Gumbel noise on alpha."""

    is_stochastic = True

    def __init__(self, settings: Concrete, protocol: TrainingProtocol) -> None:
        super().__init__(settings, protocol)
        self.temperature = settings.temperature

    def start(self, supernet: Supernet, trainer: Trainer, generator: torch.Generator) -> None:
        """Start DARTS, and store the source of the noise."""
        super().start(supernet, trainer, generator)
        self.generator = generator

    def mixture(self) -> Mixture:
        """Weigh the operations by the softmax of alpha plus Gumbel noise (eq. 10)."""
        noisy = [alpha + self._noise(alpha) for alpha in self.alpha]
        return Mixture([F.softmax(logits / self.temperature, dim=0) for logits in noisy])

    def central_mixture(self) -> Mixture:
        """Weigh the operations without noise."""
        return Mixture([F.softmax(alpha, dim=0) for alpha in self.alpha])

    def _noise(self, alpha: Tensor) -> Tensor:
        uniform = torch.rand(len(alpha), generator=self.generator).clamp_min(1e-9)
        return -(-uniform.log()).log().to(alpha.device)
