"""The end of the block: both gates on the feature map, forward and backward in one pass each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from search_spaces.ops.fused import chunks, differentiable, is_traced


def recalibrate(x: Tensor, channel_gate: Tensor, spatial_gate: Tensor) -> Tensor:
    """Return x * (1 + channel_gate + spatial_gate), computed in the precision of the gates.

    Shapes: x (B, C, H, W) to the same, in the precision of x; `channel_gate` (B, C, 1, 1),
    `spatial_gate` (B, 1, H, W).
    """
    if is_traced(x):
        return _plain_recalibrate(x, channel_gate, spatial_gate)
    return _Recalibrate.apply(x, channel_gate, spatial_gate)


def _plain_recalibrate(x: Tensor, channel_gate: Tensor, spatial_gate: Tensor) -> Tensor:
    return (((1 + channel_gate) + spatial_gate) * x).to(x.dtype)


def _write(x: Tensor, channel_gate: Tensor, spatial_gate: Tensor, out: Tensor) -> None:
    factor = (1 + channel_gate) + spatial_gate
    if x.dtype == factor.dtype:
        torch.mul(factor, x, out=out)
    else:
        out.copy_(factor.mul_(x))


class _Recalibrate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, channel_gate: Tensor, spatial_gate: Tensor) -> Tensor:
        ctx.save_for_backward(x, channel_gate, spatial_gate)
        out = torch.empty_like(x)
        for part in chunks(x):
            _write(x[part], channel_gate[part], spatial_gate[part], out[part])
        return out

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
        in_x, in_channel, in_spatial = map(torch.empty_like, inputs)
        for part in chunks(x):
            own = gradient[part]
            _write(own, channel_gate[part], spatial_gate[part], in_x[part])
            product = own.to(channel_gate.dtype) * x[part]
            in_channel[part] = product.sum((2, 3), keepdim=True)
            in_spatial[part] = product.sum(1, keepdim=True)
        return in_x, in_channel, in_spatial
