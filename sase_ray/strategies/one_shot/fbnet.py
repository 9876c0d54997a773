"""FBNet: a stochastic supernet by Gumbel-softmax, its expected latency in the loss.

Wu et al., "FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture
Search", CVPR 2019.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sase_ray.strategies.contract import SearchTask
from sase_ray.strategies.one_shot.darts import DARTS, Beta, DARTSAlgorithm
from search_spaces.mixture import EdgeWeights, Mixture
from search_spaces.network import Supernet
from search_spaces.user_paths import UserPath
from trainables.one_shot.algorithm import OneShotAlgorithm, StepCost
from trainables.one_shot.latency_table import LatencyTable, cached_latency_table
from trainables.training.loop import Batch, Trainer
from trainables.training.protocol import TrainingProtocol

PAPER_EPOCHS = 90
"""Number of epochs of the paper's search, over which its temperature falls."""

COLDEST = 1e-6
"""Lowest temperature: draws are one-hot there, and must stay finite."""


class FBNet(DARTS):
    """Gumbel-softmax with a falling temperature and latency. The defaults are the paper's (4.1).

    Differences from the paper: batches have 64 images (paper: 192), weights and alpha get half of
    the images each (80% and 20%), their steps alternate (one after the other within an epoch), and
    the answer is the most probable genotype (the best of several draws).

    The paper's alpha takes 80 epochs of 133 steps of 0.01: a travel of 107.
    """

    name: ClassVar[str] = "fbnet"
    source: ClassVar[str] = "Wu et al. 2019"
    summary: ClassVar[str] = "Gumbel-softmax supernet with expected latency in the loss"

    temperature: float = Field(default=5.0, gt=0, description="of Gumbel-softmax, at first")
    decay: float = Field(
        default=0.045, ge=0, description="of the temperature, exponential, in 1/90 of the search"
    )
    latency_factor: float = Field(default=0.2, gt=0, description="a of CE * a * log(LAT)^b")
    latency_power: float = Field(default=0.6, ge=0, description="b; 0 ignores the latency")
    latency_table: UserPath | None = Field(
        default=None,
        description="file made by `sase-ray latency`; by default it is measured and cached where "
        "the search runs",
    )
    warmup: float = Field(
        default=0.1, ge=0, lt=1, description="share of the steps before alpha is trained"
    )
    lr: float = Field(default=0.1, gt=0, description="of the weights, SGD, cosine to lr_min")
    lr_min: float = Field(default=0.0, ge=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    alpha_lr: float | None = Field(
        default=None, gt=0, description="of alpha, Adam; default: travel / steps (paper: 0.01)"
    )
    travel: float = Field(
        default=107, gt=0, description="how far alpha can move: its rate times its steps"
    )
    alpha_betas: tuple[Beta, Beta] = (0.9, 0.999)
    alpha_weight_decay: float = Field(default=5e-4, ge=0)

    def algorithm(self, task: SearchTask) -> OneShotAlgorithm:
        """Return the algorithm, with the latency table if one is given."""
        return FBNetAlgorithm(self, self.weight_protocol(task), self.table())

    def check(self, task: SearchTask) -> None:
        """Reject also a latency table of another network; its device is checked where it runs."""
        super().check(task)
        table = self.table()
        if table and self.latency_power:
            table.check_network(task.job.network, task.job.space)

    def table(self) -> LatencyTable | None:
        """Return the latency table that was given, if any."""
        return LatencyTable.load(self.latency_table) if self.latency_table else None


class FBNetAlgorithm(DARTSAlgorithm):
    """Alternation of weight and alpha steps, each on its own sample.

    The weights only follow the cross-entropy: for them the latency is a factor near one.
    """

    settings: FBNet
    is_stochastic = True

    def __init__(
        self, settings: FBNet, protocol: TrainingProtocol, latency: LatencyTable | None
    ) -> None:
        super().__init__(settings, protocol)
        self.step_cost = StepCost(passes=2, warmup=settings.warmup)
        self.latency = latency

    def start(self, supernet: Supernet, trainer: Trainer, generator: torch.Generator) -> None:
        """Draw alpha near zero; measure the latencies if none were given, and check them."""
        super().start(supernet, trainer, generator)
        self.generator = generator
        self.temperature = self.settings.temperature
        if self.settings.latency_power:
            spec, device = supernet.spec, trainer.device
            if self.latency is None:
                self.latency = cached_latency_table(spec, self.space, device)
            self.latency.check(spec, self.space, device)

    def begin_step(self, progress: float) -> None:
        """Lower the temperature."""
        decay = self.settings.decay * PAPER_EPOCHS * progress
        self.temperature = max(COLDEST, self.settings.temperature * math.exp(-decay))

    def mixture(self) -> Mixture:
        """Draw weights from Gumbel-softmax (eq. 6)."""
        self.drawn = Mixture(
            [self.weigh(i, self._gumbel(alpha), self.temperature) for i, alpha in self._edges()]
        )
        return self.drawn

    def central_mixture(self) -> Mixture:
        """Weigh the operations by their probabilities (eq. 5)."""
        return Mixture([self.weigh(i, alpha, 1.0) for i, alpha in self._edges()])

    def weigh(self, variable: int, logits: Tensor, temperature: float) -> EdgeWeights:
        """Return the weights of one edge from the logits of its operations."""
        return F.softmax(logits / temperature, dim=0)

    def _edges(self) -> list[tuple[int, Tensor]]:
        return list(enumerate(self.alpha))

    def _gumbel(self, alpha: Tensor) -> Tensor:
        # The softmax of alpha is equal to that of its log-probabilities.
        exponential = torch.empty(len(alpha)).exponential_(generator=self.generator)
        return alpha - exponential.log().to(alpha.device)

    def gradient(self, train: Batch, validation: Batch) -> tuple[Tensor, ...]:
        """Return the gradient of CE * a * log(LAT)^b with respect to alpha (eq. 2).

        LAT is in microseconds.
        """
        loss = self.trainer.loss(validation)
        if self.latency is not None and self.settings.latency_power:
            microseconds = 1e3 * self.latency.expected(self.drawn, self.space)
            power = self.settings.latency_power
            loss = loss * self.settings.latency_factor * microseconds.log() ** power
        return torch.autograd.grad(loss, self.learned, materialize_grads=True)

    def state_dict(self) -> dict[str, Any]:
        """Return alpha, its optimiser, and the latencies."""
        table = self.latency.model_dump() if self.latency else None
        return super().state_dict() | {"latency": table}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them: a resumed search continues with the latencies that it began with."""
        super().load_state_dict(state)
        if state["latency"]:
            self.latency = LatencyTable.model_validate(state["latency"])
