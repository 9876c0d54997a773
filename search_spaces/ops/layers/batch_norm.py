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
        if self.running_mean is None:
            return super().forward(x)
        # A module in half precision may get float32, and torch rejects the mixture.
        if self.uses_batch(x.numel() // max(x.shape[1], 1)):
            return super().forward(x.to(self.running_mean.dtype)).to(x.dtype)
        stored = (self.running_mean, self.running_var, self.weight, self.bias)
        mean, var, weight, bias = (None if t is None else t.to(x.dtype) for t in stored)
        return F.batch_norm(x, mean, var, weight, bias, eps=self.eps)

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
