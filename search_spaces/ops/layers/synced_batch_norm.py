"""Batch norm over a batch that is divided among several processes.

Torch's own `SyncBatchNorm` works only on a GPU, so that nothing could be tested without one, and
does not support the block's batch norm.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from search_spaces.errors import UserError
from search_spaces.ops.layers.batch_norm import BatchNorm2d, move_running_statistics


class SharedNorm(nn.Module):
    """Batch norm that trains with the statistics of all processes' parts of the batch.

    Values, gradients and running statistics equal those of a batch norm over the whole batch, for
    a loss that is the sum of the processes' losses. In evaluation it is the plain batch norm.
    Every process of torch's default group must call it, with at least one image.

    Args:
        norm: Batch norm, which keeps its parameters and buffers. The steps of timm's
            `BatchNormAct2d` after normalising are applied here too.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, ...)."""
        norm = self.norm
        if not norm.training:
            return norm(x)
        y, mean, variance, count = _Normalise.apply(x, norm.weight, norm.bias, norm.eps)
        move_running_statistics(norm, mean, variance, count)
        for name in ("drop", "act"):
            after = getattr(norm, name, None)
            y = y if after is None else after(y)
        return y


def share_norms(model: nn.Module) -> nn.Module:
    """Make every batch norm of a network train with the statistics of all processes, in place.

    Raises:
        UserError: It has a batch norm of a kind that is not supported here.
    """
    for name, child in model.named_children():
        if isinstance(child, _BatchNorm):
            setattr(model, name, SharedNorm(_known(child)))
        else:
            share_norms(child)
    return model


def _known(norm: _BatchNorm) -> _BatchNorm:
    known = type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNorm2d)
    if not known and type(norm).__name__ != "BatchNormAct2d":
        raise UserError(
            f"a batch norm of type {type(norm).__name__} cannot be shared by several workers: "
            f"set final.workers to 1, or choose another backbone"
        )
    return norm


class _Normalise(torch.autograd.Function):
    """Normalisation of (B, C, ...), with mean, biased variance (C,) and count of all parts.

    Source: Ioffe and Szegedy, ICML 2015, https://arxiv.org/abs/1502.03167; their gradients with the
    sums taken over all processes. The count is the number of values per channel.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = _full_precision(x)
        variance, mean = torch.var_mean(wide, _all_but_channels(x), correction=0)
        mean, variance, count = _of_all_parts(mean, variance, x.numel() // x.shape[1])
        y = F.batch_norm(wide, mean, variance, weight, bias, eps=eps).to(x.dtype)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        ctx.has_bias = bias is not None
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        shape = (-1,) + (1,) * (x.ndim - 2)
        axes = _all_but_channels(x)
        wide = _full_precision(gradient)
        normed = (_full_precision(x) - mean.view(shape)) * inverse.view(shape)
        sums = torch.stack([wide.sum(axes), (wide * normed).sum(axes)])
        # Gradient of this process's part, as for any parameter: averaging gradients adds them up.
        in_bias = sums[0].clone() if ctx.has_bias else None
        in_weight = None if weight is None else sums[1].clone()
        dist.all_reduce(sums)
        along_one, along_normed = sums / count
        scale = inverse if weight is None else inverse * weight
        in_x = normed.mul_(along_normed.view(shape)).add_(along_one.view(shape))
        in_x = torch.sub(wide, in_x).mul_(scale.view(shape))
        return in_x.to(x.dtype), in_weight, in_bias, None


def _of_all_parts(mean: Tensor, variance: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Combine the statistics of the parts; sums of squares would cancel where the mean is large."""
    own = torch.cat([mean, variance, mean.new_full((1,), count)])
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    means, variances, counts = torch.stack(parts).split([len(mean), len(mean), 1], dim=1)
    total = counts.sum()
    share = counts / total
    mean = (share * means).sum(0)
    variance = (share * (variances + (means - mean).square())).sum(0)
    return mean, variance, total


def _full_precision(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]
