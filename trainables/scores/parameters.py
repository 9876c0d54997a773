"""The number of parameters: the control that every training-free score has to beat.

White et al., "A Deeper Look at Zero-Cost Proxies for Lightweight NAS", ICLR Blog Track 2022.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from trainables.metrics import Metric, declare
from trainables.scores.contract import Score
from trainables.tasks.contract import Task

PARAMETERS = Metric("parameters", "max", format=",.0f")
declare(PARAMETERS)


class Parameters(Score):
    """Number of trainable parameters."""

    name: ClassVar[str] = "parameters"
    source: ClassVar[str] = "White et al., ICLR Blog Track 2022"
    summary: ClassVar[str] = "number of parameters, as a control"
    metric: ClassVar[Metric] = PARAMETERS
    passes: ClassVar[int] = 0

    def compute(self, network: nn.Module, images: Tensor, targets: Tensor, task: Task) -> float:
        """Count the parameters; images and targets are not read."""
        return float(sum(p.numel() for p in network.parameters() if p.requires_grad))
