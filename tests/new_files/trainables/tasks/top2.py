"""Classification by two guesses."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.metrics import LOSS, Metric, declare
from trainables.tasks.contract import Task

TOP2 = Metric("top2", "max", "%", ".2f", scale=100.0, difference="points", lost=0.0, share=True)
declare(TOP2)


class Top2(Task):
    """Cross-entropy; an image counts as right if its class has one of the two largest outputs."""

    name: ClassVar[str] = "top2"
    summary: ClassVar[str] = "one class per image, with two guesses"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Mean cross-entropy in nats, and share of images with a right guess."""
        return LOSS, TOP2

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy in nats."""
        return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the summed cross-entropy, and the number of images with a right guess."""
        loss = F.cross_entropy(outputs, targets, reduction="sum").double()
        return torch.stack([loss, _is_right(outputs, targets).sum().double()])

    def measure(self, sums: list[float], count: int) -> dict[str, float]:
        """Return `loss` and `top2`."""
        return {"loss": sums[0] / count, "top2": sums[1] / count}

    def reward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the share of images with a right guess."""
        return _is_right(outputs, targets).float().mean()


def _is_right(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.topk(2, dim=1).indices == targets[:, None]).any(1)
