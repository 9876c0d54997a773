"""Torch's batch norm and convolution, fit for the small maps and mixed precision of the block."""

from __future__ import annotations

import torch
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


class Conv2d(nn.Conv2d):
    """Convolution without bias, stride 1, that computes in the dtype of its input.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: height and width of the kernel.
        groups: number of groups of channels.
        same: pad with zeros so that the size of the map stays (odd kernels).
        device: of the weight.
        dtype: of the weight.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        groups: int = 1,
        same: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        height, width = kernel_size
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            padding=(height // 2, width // 2) if same else 0,
            groups=groups,
            bias=False,
            device=device,
            dtype=dtype,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, in_channels, H, W) to (B, out_channels, H', W')."""
        return self._conv_forward(x, self.weight.to(x.dtype), None)
