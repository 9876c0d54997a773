"""PC-DARTS: mixed operations see a part of the channels, and weights over the joins are learned.

Xu et al., "PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search", ICLR
2020: partial channel connection, and edge normalisation over the two joins of the block, (s_u, s_x)
and (g_c, g_s).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from sase_ray.strategies.contract import SearchTask
from sase_ray.strategies.one_shot.darts import DARTS, DARTSAlgorithm
from search_spaces.mixture import Mixture
from search_spaces.network import Supernet
from search_spaces.partial_block import PartialSuperSASE
from trainables.metrics import Metric, declare
from trainables.one_shot.algorithm import OneShotAlgorithm, StepCost
from trainables.training.loop import Trainer
from trainables.training.protocol import TrainingProtocol

declare(Metric("shown_channels", None, format=".0f"))


class PCDARTS(DARTS):
    """DARTS with partial channels. The defaults are the paper's (section 4.2).

    The paper's alpha takes 35 epochs (15 of 50 are warm-up) of 97 steps of 6e-4: a travel of 2.0.
    """

    name: ClassVar[str] = "pc-darts"
    source: ClassVar[str] = "Xu et al. 2020"
    summary: ClassVar[str] = "DARTS that shows 1/K of the channels, with edge normalisation"

    parts: int = Field(default=4, ge=1, description="K: operations see 1 in K channels")
    edge_normalisation: bool = Field(default=True, description="learn weights over the joins")
    warmup: float = Field(
        default=0.3, ge=0, lt=1, description="share of the steps before alpha is trained"
    )
    batch_size: int = Field(default=256, ge=2)
    lr: float = Field(default=0.1, gt=0, description="of the weights, SGD, cosine to lr_min")
    lr_min: float = Field(default=0.0, ge=0)
    alpha_lr: float | None = Field(
        default=None, gt=0, description="of alpha, Adam; default: travel / steps (paper: 6e-4)"
    )
    travel: float = Field(
        default=2.0, gt=0, description="how far alpha can move: its rate times its steps"
    )

    def algorithm(self, task: SearchTask) -> OneShotAlgorithm:
        """Return the first-order algorithm on partial channels."""
        return PCDARTSAlgorithm(self, self.weight_protocol(task))


class PCDARTSAlgorithm(DARTSAlgorithm):
    """First-order DARTS with learned weights over the joins."""

    settings: PCDARTS

    def __init__(self, settings: PCDARTS, protocol: TrainingProtocol) -> None:
        super().__init__(settings, protocol)
        self.step_cost = StepCost(passes=2, warmup=settings.warmup)

    def block(self) -> Callable[..., nn.Module]:
        """Return the block of partial channels."""
        return partial(PartialSuperSASE, parts=self.settings.parts)

    def start(self, supernet: Supernet, trainer: Trainer, generator: torch.Generator) -> None:
        """Draw alpha, and store how many channels the narrowest block shows its operations."""
        super().start(supernet, trainer, generator)
        blocks = [m for m in supernet.modules() if isinstance(m, PartialSuperSASE)]
        self.shown = min(block.shown for block in blocks)

    def report(self) -> dict[str, Any]:
        """Record also how many channels are shown."""
        return super().report() | {"shown_channels": self.shown}

    def further_parameters(self) -> list[nn.Parameter]:
        """Return beta of both joins, equal at first; none without edge normalisation."""
        count = 2 if self.settings.edge_normalisation else 0
        device = self.trainer.device
        self.beta = [nn.Parameter(torch.zeros(2, device=device)) for _ in range(count)]
        return self.beta

    def mixture(self) -> Mixture:
        """Weigh operations by the softmax of alpha, and the sides of a join by that of beta."""
        edges = super().mixture().edges
        if not self.beta:
            return Mixture(edges)
        squeezes, gates = self.beta
        return Mixture(edges, (F.softmax(squeezes, dim=0), F.softmax(gates, dim=0)))
