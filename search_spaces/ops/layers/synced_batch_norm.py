"""Batch norm over a batch whose parts lie with several processes.

Torch's own `SyncBatchNorm` does the same on a GPU only, so that nothing could be tested without
one, and does not know the block's batch norm.
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
    """A batch norm that trains with the statistics of the parts of all processes together.

    Values, gradients and running statistics are those of the batch norm over the whole batch, for
    a loss that is the sum of the processes' losses. In evaluation it is the batch norm itself.
    Every process of torch's default group must call it, with at least one image.

    Args:
        norm: the batch norm, whose parameters and buffers stay where they are. What timm's
            `BatchNormAct2d` does after normalising is done here too.
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
    """Let every batch norm in a network train with the statistics of all processes; in place.

    Raises:
        UserError: it has a batch norm that does more than is known here.
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
    """(B, C, ...) normalised; mean and biased variance (C,) of all parts, and values a channel.

    Ioffe and Szegedy, ICML 2015, https://arxiv.org/abs/1502.03167, their gradients with the sums
    taken over all processes.
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
        # Of this process's part, as for any other parameter: who averages gradients adds them up.
        in_bias = sums[0].clone() if ctx.has_bias else None
        in_weight = None if weight is None else sums[1].clone()
        dist.all_reduce(sums)
        along_one, along_normed = sums / count
        scale = inverse if weight is None else inverse * weight
        in_x = normed.mul_(along_normed.view(shape)).add_(along_one.view(shape))
        in_x = torch.sub(wide, in_x).mul_(scale.view(shape))
        return in_x.to(x.dtype), in_weight, in_bias, None


def _of_all_parts(mean: Tensor, variance: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Combine the parts' statistics; sums of squares would cancel where the mean is large."""
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
