"""Gradient norm of the loss with respect to the images.

Simonyan, Vedaldi and Zisserman, 2013, https://arxiv.org/abs/1312.6034 (the map of gradients).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from trainables.metrics import Metric, declare
from trainables.scores.contract import Score
from trainables.scores.restore import restored
from trainables.tasks.contract import Task

INPUT_GRAD = Metric("input_grad", "max", format=".4g", label="input gradient")
declare(INPUT_GRAD)


class InputGrad(Score):
    """Norm of the gradient of the loss with respect to the batch of images."""

    name: ClassVar[str] = "input-grad"
    source: ClassVar[str] = "Simonyan et al. 2013"
    summary: ClassVar[str] = "norm of the gradient with respect to the images"
    metric: ClassVar[Metric] = INPUT_GRAD
    passes: ClassVar[int] = 1

    def compute(self, network: nn.Module, images: Tensor, targets: Tensor, task: Task) -> float:
        """Return the Euclidean norm of dL/dx, in training mode."""
        with restored(network):
            network.train()
            images = images.detach().requires_grad_(True)
            loss = task.loss(network(images), targets)
            (gradient,) = torch.autograd.grad(loss, images)
            return float(gradient.norm())
