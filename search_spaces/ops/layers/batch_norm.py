"""Batch norm of torch, adapted to the small maps and mixed precision of the block."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that also trains on one value per channel, and keeps the dtype of its input.

    A training batch with B * H * W = 1 has no variance: it is normalised by the running statistics
    and does not change them, where torch raises an error.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        return _normalise(
            x,
            self.running_mean,
            self.running_var,
            self.num_batches_tracked,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )

    def uses_batch(self, count: int) -> bool:
        """Return whether a batch with `count` values per channel uses its own statistics."""
        return self.training and count != 1

    def observe(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Update the running statistics as torch does after a training batch.

        Args:
            mean: Mean of the batch, (C,).
            variance: Biased variance of the batch, (C,).
            count: Number of values per channel.
        """
        move_running_statistics(self, mean, variance, count)


@torch.fx.wrap  # one node of a symbolic graph: it depends on the number of values
def _normalise(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    batches: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float | None,
    eps: float,
) -> Tensor:
    if mean is None or variance is None:
        return F.batch_norm(x, None, None, weight, bias, True, eps=eps)
    if not training or x.shape[0] * x.shape[2] * x.shape[3] == 1:
        # A module in half precision may get float32, and torch rejects the mixture.
        stored = (mean, variance, weight, bias)
        mean, variance, weight, bias = (None if t is None else t.to(x.dtype) for t in stored)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps)
    if batches is not None:
        batches.add_(1)
        momentum = 1.0 / float(batches) if momentum is None else momentum
    own = x.to(mean.dtype)
    y = F.batch_norm(own, mean, variance, weight, bias, True, momentum or 0.0, eps)
    return y.to(x.dtype)


@torch.no_grad()
def move_running_statistics(
    norm: _BatchNorm, mean: Tensor, variance: Tensor, count: int | Tensor
) -> None:
    """Update the running statistics of a batch norm, if it has any: see `BatchNorm2d.observe`."""
    if norm.running_mean is None or norm.running_var is None:
        return
    momentum = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1.0 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum or 0.0)
    unbiased = variance * (count / (count - 1))
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), momentum or 0.0)
