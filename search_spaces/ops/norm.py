"""Torch's batch norm, fit for the small maps and mixed precision of the block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that also trains on a single value a channel, and keeps the dtype of its input.

    A training batch with B * H * W = 1 has no variance: it is normalised by the running
    statistics, which it leaves as they are, where torch raises an error.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        if self.running_mean is None:
            return super().forward(x)
        # A module in half precision is given float32, and torch refuses the mixture.
        if self.training and x.numel() != x.shape[1]:
            return super().forward(x.to(self.running_mean.dtype)).to(x.dtype)
        stored = (self.running_mean, self.running_var, self.weight, self.bias)
        mean, var, weight, bias = (None if t is None else t.to(x.dtype) for t in stored)
        return F.batch_norm(x, mean, var, weight, bias, eps=self.eps)
