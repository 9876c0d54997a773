"""Classification: one of K classes per image."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.metrics import ACCURACY, LOSS, Metric
from trainables.tasks.contract import Task


class Classification(Task):
    """Cross-entropy with label smoothing; targets are classes, int64 (B,)."""

    name: ClassVar[str] = "classification"
    summary: ClassVar[str] = "one class per image: cross-entropy and accuracy"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Mean cross-entropy in nats, and share of images classified correctly."""
        return LOSS, ACCURACY

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy in nats."""
        return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the summed cross-entropy, and the number of images classified correctly."""
        loss = F.cross_entropy(outputs, targets, reduction="sum").double()
        return torch.stack([loss, (outputs.argmax(1) == targets).sum().double()])

    def measure(self, sums: list[float], count: int) -> dict[str, float]:
        """Return `loss` and `accuracy`."""
        return {"loss": sums[0] / count, "accuracy": sums[1] / count}

    def reward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the accuracy."""
        return (outputs.argmax(1) == targets).float().mean()


CLASSIFICATION = Classification()
