"""Second-order pooling: covariances of variables as features."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.ops.kernels.autograd import differentiable
from search_spaces.ops.kernels.mode import is_fused
from search_spaces.ops.kernels.reference_statistics import covariance
from search_spaces.ops.layers.batch_norm import BatchNorm2d
from search_spaces.ops.layers.conv import Conv2d, mix_channels


class SecondOrder(nn.Module):
    """Features of a covariance: BN, a convolution of each row, ReLU, 1x1 convolution.

    Global second-order pooling (GSoP), Gao et al., CVPR 2019, https://arxiv.org/abs/1811.12006.

    Args:
        variables: Number of variables D.
        features: Number of output features.
        affine: Whether the batch norm has affine parameters.
        device: Device of the parameters.
        dtype: Dtype of the parameters.
    """

    def __init__(
        self,
        variables: int,
        features: int,
        *,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.variables = variables
        self.norm = BatchNorm2d(variables, affine=affine, device=device, dtype=dtype)
        self.rows = Conv2d(
            variables, variables, (variables, 1), groups=variables, device=device, dtype=dtype
        )
        self.mix = Conv2d(variables, features, (1, 1), device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Compute features (B, features, 1, 1) of D variables in N observations, (B, D, N)."""
        # The fused form is that of our own batch norm, which others may have replaced.
        if is_fused(x) and type(self.norm) is BatchNorm2d:
            rows = F.relu(self._normalised_rows(x, self.norm))
            return mix_channels(rows[:, :, None, None], self.mix.weight)
        return self.mix(F.relu(self.rows(self.norm(covariance(x).unsqueeze(3)))))

    def _normalised_rows(self, x: Tensor, norm: BatchNorm2d) -> Tensor:
        weight, count = self.rows.weight.to(x.dtype).flatten(1), x.shape[0] * x.shape[1]
        stored = None
        mean, variance = norm.running_mean, norm.running_var
        if mean is not None and variance is not None and not norm.uses_batch(count):
            stored = (mean.to(x.dtype), variance.to(x.dtype))
        centred = x + -x.mean(2, keepdim=True)  # as a sum: see `benchmarks/NOTES.md`
        rows, mean, variance = _NormalisedRows.apply(centred, weight, stored, norm.eps)
        if stored is None:
            norm.observe(mean, variance, count)
        if norm.affine:
            rows = norm.weight.to(x.dtype) * rows + norm.bias.to(x.dtype) * weight.sum(1)
        return rows


class _NormalisedRows(torch.autograd.Function):
    """Product of each row of a covariance, normalised as by batch norm, with its own weights.

    Shapes: centred variables (B, D, N) and weights (D, D) to (B, D), and the mean and the biased
    variance of each row over the batch. With torch's batch norm, and its gradient of a matrix times
    its transpose, there are four times as many passes over the covariances.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, weight: Tensor, stored: tuple[Tensor, Tensor] | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        cov = torch.bmm(q, q.mT).mul_(1 / max(q.shape[2] - 1, 1))
        mean = _mean_of_rows(cov) if stored is None else stored[0]
        cov.add_(-mean[:, None])
        variance = _mean_of_rows(cov.square()) if stored is None else stored[1]
        inverse = (variance + eps).rsqrt()
        rows = (cov * weight).sum(2)
        ctx.save_for_backward(q, weight, cov, rows, inverse)
        ctx.stored, ctx.eps = stored, eps
        ctx.mark_non_differentiable(mean, variance)
        return rows * inverse, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        q, weight, cov, rows, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # double backward was requested
            stored, eps = ctx.stored, ctx.eps
            return (
                *differentiable(
                    lambda q, weight: (_plain_normalised_rows(q, weight, stored, eps),),
                    [q, weight],
                    ctx.needs_input_grad[:2],
                    [gradient],
                ),
                None,
                None,
            )
        scaled = gradient * inverse
        in_weight = (cov * scaled.unsqueeze(2)).sum(0)
        in_cov = scaled.unsqueeze(2) * weight
        if ctx.stored is None:
            count = cov.shape[0] * cov.shape[2]
            slope = (gradient * rows).sum(0) * inverse.pow(3) / -count
            in_cov.addcmul_(cov, slope[:, None])
            in_cov.add_((scaled.sum(0) * weight.sum(1) / -count)[:, None])
        in_q = torch.bmm(in_cov, q).baddbmm_(in_cov.mT, q)
        return in_q.mul_(1 / max(q.shape[2] - 1, 1)), in_weight, None, None


def _mean_of_rows(cov: Tensor) -> Tensor:
    """Return the mean of each row over the batch, (B, D, D) to (D,), in two steps for speed."""
    return cov.sum(0).sum(1) / max(cov.shape[0] * cov.shape[2], 1)


def _plain_normalised_rows(
    q: Tensor, weight: Tensor, stored: tuple[Tensor, Tensor] | None, eps: float
) -> Tensor:
    cov = q @ q.mT / max(q.shape[2] - 1, 1)
    if stored is None:
        mean, variance = cov.mean((0, 2)), cov.var((0, 2), correction=0)
    else:
        mean, variance = stored
    normed = (cov - mean[:, None]) * (variance + eps).rsqrt()[:, None]
    return (normed * weight).sum(2)
