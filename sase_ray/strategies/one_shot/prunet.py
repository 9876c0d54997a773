"""PruNet: FBNet's stochastic supernet, whose improbable operations are pruned during the search.

Kierat et al., "Tiered Pruning for Efficient Differentiable Inference-Aware Neural Architecture
Search", 2022 (arXiv 2209.11785): the pruning of blocks within a stochastic layer. Its pruning of
inner dimensions and of whole layers has no counterpart in a block of six edges.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sase_ray.strategies.contract import SearchTask
from sase_ray.strategies.one_shot.fbnet import FBNet, FBNetAlgorithm
from search_spaces.mixture import EdgeWeights
from search_spaces.network import Supernet
from trainables.metrics import Metric, declare
from trainables.one_shot.algorithm import OneShotAlgorithm
from trainables.training.loop import Trainer

PRUNED = -1e3
"""Value added to the log-probability of a pruned operation."""

PRUNINGS = 20
"""Number of prunings of a search, at equal intervals of its steps."""

declare(Metric("operations_left", None, format=".0f"))


class PruNet(FBNet):
    """FBNet with pruning."""

    name: ClassVar[str] = "prunet"
    source: ClassVar[str] = "Kierat et al. 2022"
    summary: ClassVar[str] = "FBNet that prunes operations of low probability as it goes"

    threshold: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="prune below this share of an even chance among those that are left",
    )

    def algorithm(self, task: SearchTask) -> OneShotAlgorithm:
        """Return the algorithm, with the latency table if one is given."""
        return PruNetAlgorithm(self, self.weight_protocol(task), self.table())


class PruNetAlgorithm(FBNetAlgorithm):
    """FBNet's algorithm over the operations that are left."""

    settings: PruNet

    def start(self, supernet: Supernet, trainer: Trainer, generator: torch.Generator) -> None:
        """Begin with all operations."""
        super().start(supernet, trainer, generator)
        self.left = [list(range(len(alpha))) for alpha in self.alpha]
        self.prunings = 0

    def begin_step(self, progress: float) -> None:
        """Prune, at every 1/`PRUNINGS` of the steps that are not warm-up.

        The most probable operation of an edge always stays.
        """
        super().begin_step(progress)
        warmup = self.settings.warmup
        due = int(PRUNINGS * (progress - warmup) / (1 - warmup))
        if due <= self.prunings:
            return
        self.prunings = due
        for variable, alpha in enumerate(self.alpha):
            left = self.left[variable]
            chances = F.softmax(alpha.detach()[left], dim=0).tolist()
            lowest = self.settings.threshold / len(left)
            self.left[variable] = [
                op for op, chance in zip(left, chances, strict=True) if chance >= lowest
            ]

    def weigh(self, variable: int, logits: Tensor, temperature: float) -> EdgeWeights:
        """Weigh the operations that are left; the others are not evaluated."""
        left = self.left[variable]
        if len(left) == len(logits):
            return F.softmax(logits / temperature, dim=0)
        weights = F.softmax(logits[left] / temperature, dim=0)
        return dict(zip(left, weights.unbind(), strict=True))

    def log_probabilities(self) -> list[list[float]]:
        """Return the log-probabilities under alpha, pruned operations far below all others."""
        return [
            [value if op in left else value + PRUNED for op, value in enumerate(row)]
            for left, row in zip(self.left, super().log_probabilities(), strict=True)
        ]

    def report(self) -> dict[str, Any]:
        """Record the probabilities of the operations that are left, and the number of these."""
        alpha = {}
        for variable, left, values in zip(self.space.variables, self.left, self.alpha, strict=True):
            chances = torch.zeros(len(values))
            chances[left] = F.softmax(values.detach()[left], dim=0).cpu()
            alpha[variable.name] = chances.tolist()
        return super().report() | {
            "alpha": alpha,
            "operations_left": sum(len(left) for left in self.left),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return FBNet's state, the operations that are left, and the number of prunings."""
        return super().state_dict() | {
            "left": [list(left) for left in self.left],
            "prunings": self.prunings,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore FBNet's state, the operations that are left, and the number of prunings."""
        super().load_state_dict(state)
        self.left = [list(left) for left in state["left"]]
        self.prunings = state["prunings"]
