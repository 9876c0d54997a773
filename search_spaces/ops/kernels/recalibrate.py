"""Last step of the block: both gates applied to the map, in one pass each way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from search_spaces.ops.kernels.autograd import differentiable
from search_spaces.ops.kernels.mode import is_fused


def recalibrate(x: Tensor, channel_gate: Tensor, spatial_gate: Tensor) -> Tensor:
    """Return x * (1 + channel_gate + spatial_gate), computed in the precision of the gates.

    Shapes: x (B, C, H, W) to the same, in the precision of x; `channel_gate` (B, C, 1, 1),
    `spatial_gate` (B, 1, H, W).
    """
    if is_fused(x):
        return _Recalibrate.apply(x, channel_gate, spatial_gate)
    return _plain_recalibrate(x, channel_gate, spatial_gate)


def _plain_recalibrate(x: Tensor, channel_gate: Tensor, spatial_gate: Tensor) -> Tensor:
    # The map first: the product takes its memory format.
    return (x * ((1 + channel_gate) + spatial_gate)).to(x.dtype)


class _Recalibrate(torch.autograd.Function):
    """Fused `_plain_recalibrate` that writes each result over one of its factors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, channel_gate: Tensor, spatial_gate: Tensor) -> Tensor:
        ctx.save_for_backward(x, channel_gate, spatial_gate)
        out = torch.empty_like(x, dtype=channel_gate.dtype)  # in the memory format of x
        return torch.add(1 + channel_gate, spatial_gate, out=out).mul_(x).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            return differentiable(
                lambda *inputs: (_plain_recalibrate(*inputs),),
                inputs,
                ctx.needs_input_grad,
                [gradient],
            )
        x, channel_gate, spatial_gate = inputs
        product = gradient.to(channel_gate.dtype) * x
        in_channel = product.sum((2, 3), keepdim=True)
        in_spatial = product.sum(1, keepdim=True)
        in_x = torch.add(1 + channel_gate, spatial_gate, out=product).mul_(gradient)
        return in_x.to(x.dtype), in_channel, in_spatial
