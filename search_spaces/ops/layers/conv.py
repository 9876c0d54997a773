"""Convolutions adapted to the block: for one-channel maps, in the precision of the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from search_spaces.ops.kernels.autograd import constant
from search_spaces.ops.kernels.mode import is_fused, is_traced

SMALL = 2**14
"""Number of values up to which, on a CPU, torch's plain convolution is the fastest if no gradient
is needed, and torch's own gradients of a depthwise one if one is needed, whatever the kernel."""


class Conv2d(nn.Conv2d):
    """Convolution without bias and with stride 1 that computes in the dtype of its input.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        kernel_size: Height and width of the kernel.
        groups: Number of groups of channels.
        same: Whether to pad with zeros so that the map keeps its size (odd kernels).
        device: Device of the weight.
        dtype: Dtype of the weight.
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


class MapConv2d(Conv2d):
    """Convolution of a one-channel map that keeps its size.

    Args:
        kernel_size: Height and width of the kernel, both odd.
        device: Device of the weight.
        dtype: Dtype of the weight.
    """

    def __init__(
        self,
        kernel_size: tuple[int, int],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(1, 1, kernel_size, same=True, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, 1, H, W)."""
        return convolve_map(x, self.weight.to(x.dtype)) if is_fused(x) else super().forward(x)


def mix_channels(x: Tensor, weight: Tensor) -> Tensor:
    """Return the 1x1 convolution of one number per channel, (B, C, 1, 1) to (B, K, 1, 1).

    It is computed as a matrix product: torch's convolution has a tenfold overhead on such small
    inputs (on a CPU).

    Args:
        x: Numbers (B, C, 1, 1).
        weight: Weights (K, C, 1, 1).
    """
    return F.linear(x.flatten(1), weight.flatten(1).to(x.dtype))[:, :, None, None]


def convolve_map(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve a one-channel map (B, 1, H, W) with K odd kernels to (B, K, H, W).

    Args:
        x: Map (B, 1, H, W).
        weight: Kernels (K, 1, h, w), in the dtype of x.
    """
    small = x.numel() <= SMALL
    needs_gradient = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if is_traced(x) or not len(x) or (small and not needs_gradient):
        return F.conv2d(x, weight, padding=_margins(weight))
    # With one channel the strides may look channels-last, which is slow.
    x = x.flatten(1).view(x.shape)
    taps = weight.shape[2] * weight.shape[3]
    if len(weight) == 1 and (taps <= 9 or small):
        return _depthwise(x, weight)
    convolved: Tensor = _MapConvolution.apply(x, weight)
    return convolved


def convolve_channels(z: Tensor, kernels: Tensor) -> Tensor:
    """Convolve along the channels, keeping their number: (B, G, C) to (B, K, C).

    It is computed as a matrix product of windows: torch's convolution has a large overhead on such
    small inputs.

    Args:
        z: Rows of numbers; G = K rows with one kernel each, or G = 1 row for all kernels.
        kernels: Kernels (K, n) with n odd, in the dtype of z.
    """
    n = kernels.shape[1]
    windows = F.pad(z, (n // 2, n // 2)).unfold(2, n, 1)
    if z.shape[1] == 1:
        return (windows.squeeze(1) @ kernels.mT).mT
    return (windows * kernels[:, None]).sum(3)


def stack_kernels(kernels: Sequence[Tensor]) -> Tensor:
    """Pad odd kernels (1, 1, h, w) with zeros on all sides to the largest size: (K, 1, H, W)."""
    if len(kernels) == 1:
        return kernels[0]
    places = _places(tuple(tuple(k.shape[2:]) for k in kernels), kernels[0].device)
    flat = torch.cat([*(k.flatten() for k in kernels), kernels[0].new_zeros(1)])
    return flat.index_select(0, places.flatten()).view(places.shape)


@constant
def _places(sizes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """Return the index of each weight in the concatenated flat kernels, which a zero follows."""
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    end = sum(h * w for h, w in sizes)
    places = torch.full((len(sizes), 1, height, width), end)
    start = 0
    for own, (h, w) in zip(places[:, 0], sizes, strict=True):
        top, left = (height - h) // 2, (width - w) // 2
        own[top : top + h, left : left + w] = torch.arange(start, start + h * w).view(h, w)
        start += h * w
    return places.to(device)


class _MapConvolution(torch.autograd.Function):
    """Convolution of one-channel maps that keeps their size, with several or with large kernels.

    On a CPU, torch's convolutions are slow where there is one channel, those of the backward pass
    up to ten times slower than the forward pass (measured: `benchmarks/NOTES.md`).
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        if len(weight) > 1:
            return F.conv2d(x, weight, padding=_margins(weight))
        return _depthwise(x, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        in_x = in_weight = None
        if ctx.needs_input_grad[0]:
            # The gradient is a convolution with the flipped kernel.
            in_x = _depthwise(gradient, weight.flip(2, 3)).sum(1, keepdim=True)
        if ctx.needs_input_grad[1]:
            in_weight = conv2d_weight(x, weight.shape, gradient, padding=_margins(weight))
        return in_x, in_weight


def _depthwise(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve each of K maps with its own kernel: (B, K, H, W) to the same.

    The batch is treated as the channels of a depthwise convolution, which is fast where torch's
    convolution of one channel is slow.
    """
    batch, maps, *size = x.shape
    kernels = weight.expand(batch, *weight.shape).flatten(0, 1)
    stacked = x.reshape(1, batch * maps, *size)
    convolved = F.conv2d(stacked, kernels, padding=_margins(weight), groups=batch * maps)
    return convolved.view_as(x)


def _margins(weight: Tensor) -> tuple[int, int]:
    return weight.shape[2] // 2, weight.shape[3] // 2
