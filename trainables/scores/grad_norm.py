"""Gradient norm of an untrained network.

Abdelfattah, Mehrotra, Dudziak and Lane, "Zero-Cost Proxies for Lightweight NAS", ICLR 2021,
section 3.2: https://arxiv.org/abs/2101.08134
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from search_spaces.ops.kernels.mode import fused
from trainables.metrics import Metric, declare
from trainables.scores.contract import Score
from trainables.scores.restore import restored
from trainables.tasks.contract import Task

GRAD_NORM = Metric("grad_norm", "max", format=".4g", label="gradient norm")
declare(GRAD_NORM)


class GradNorm(Score):
    """Sum over convolutions and linear layers of the norm of the loss's gradient."""

    name: ClassVar[str] = "grad-norm"
    source: ClassVar[str] = "Abdelfattah et al., ICLR 2021"
    summary: ClassVar[str] = "sum of the norms of the weights' gradients"
    metric: ClassVar[Metric] = GRAD_NORM
    passes: ClassVar[int] = 1

    def compute(self, network: nn.Module, images: Tensor, targets: Tensor, task: Task) -> float:
        """Return the sum over layers of the Euclidean norm of dL/dW, in training mode."""
        with restored(network), fused():
            network.train()
            weights = [
                module.weight
                for module in network.modules()
                if isinstance(module, _ConvNd | nn.Linear)
            ]
            loss = task.loss(network(images), targets)
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            return sum(float(g.norm()) for g in gradients if g is not None)
