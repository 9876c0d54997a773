"""Spatial squeezes: each position of the map to one number.

Shapes: (B, C, H, W) to (B, 1, H, W). N = C; x runs over the channels at a position.

Sources:
    CBAM  Woo et al., Convolutional Block Attention Module, ECCV 2018,
          https://arxiv.org/abs/1807.06521
    SRM   Lee et al., Style-based Recalibration Module, ICCV 2019,
          https://arxiv.org/abs/1903.10829
    GSoP  Gao et al., Global Second-order Pooling, CVPR 2019, https://arxiv.org/abs/1811.12006
    SASE  the published code of the search space
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.ops import statistics
from search_spaces.ops.grid import GridAffine
from search_spaces.ops.registry import register_op
from search_spaces.ops.statistics import MeanAnd, SecondOrder, full_precision

KIND = "spatial_squeeze"
DIM = (1,)
COV_SIDE = 8


@register_op(KIND, "gap", source="CBAM, Woo et al. 2018")
@full_precision
def gap(x: Tensor) -> Tensor:
    """mean(x): average over the channels."""
    return statistics.mean(x, DIM)


@register_op(KIND, "l2norm", source="SASE, published code")
class L2Norm(nn.Module):
    """sqrt(sum y^2), y = a * LayerNorm(x) + b: normalised over H, W, with a and b per position."""

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        *,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.scale = GridAffine(size, device=device, dtype=dtype)

    @full_precision
    def forward(self, x: Tensor) -> Tensor:
        """Squeeze (B, C, H, W) to (B, 1, H, W)."""
        return statistics.p_norm(self.scale(F.layer_norm(x, x.shape[2:])), DIM, 2)


@register_op(KIND, "pnorm", source="SASE, published code")
@full_precision
def pnorm(x: Tensor) -> Tensor:
    """(sum x^4)^(1/4)."""
    return statistics.p_norm(x, DIM, 4)


@register_op(KIND, "gap_gmp", source="CBAM, Woo et al. 2018; mixing: SASE, published code")
class GapGmp(MeanAnd):
    """ReLU(w1 * mean(x) + w2 * max(x))."""

    dim = DIM
    statistic = staticmethod(statistics.maximum)


@register_op(KIND, "gap_std", source="after SRM, Lee et al. 2019; SASE, published code")
class GapStd(MeanAnd):
    """ReLU(w1 * mean(x) + w2 * std(x)), unbiased std."""

    dim = DIM
    statistic = staticmethod(statistics.standard_deviation)


@register_op(KIND, "gap_skew", source="SASE, published code")
class GapSkew(MeanAnd):
    """ReLU(w1 * mean(x) + w2 * mean((x - mean(x))^3))."""

    dim = DIM
    statistic = staticmethod(statistics.third_moment)


@register_op(KIND, "cov", source="GSoP, Gao et al. 2019")
class Cov(nn.Module):
    """conv1x1(ReLU(row_conv(BN(cov(y))))), y = x averaged to 8 x 8; then averaged to H x W.

    The covariance is between the 64 positions, over the C channels.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        *,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        positions = COV_SIDE**2
        self.second_order = SecondOrder(
            positions, positions, affine=affine, device=device, dtype=dtype
        )

    @full_precision
    def forward(self, x: Tensor) -> Tensor:
        """Squeeze (B, C, H, W) to (B, 1, H, W)."""
        pooled = F.adaptive_avg_pool2d(x, COV_SIDE).flatten(2).mT
        features = self.second_order(pooled).reshape(-1, 1, COV_SIDE, COV_SIDE)
        return F.adaptive_avg_pool2d(features, (x.shape[2], x.shape[3]))
