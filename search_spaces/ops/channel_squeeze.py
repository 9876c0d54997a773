"""Channel squeezes: each channel of the map to one number.

Shapes: (B, C, H, W) to (B, C, 1, 1). N = H * W; x runs over the positions of a channel.

Sources:
    SE    Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, https://arxiv.org/abs/1709.01507
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
from search_spaces.ops.grid import Affine
from search_spaces.ops.registry import register_op
from search_spaces.ops.statistics import MeanAnd, SecondOrder, full_precision

KIND = "channel_squeeze"
DIM = (2, 3)
COV_REDUCTION = 4


@register_op(KIND, "gap", source="SE, Hu et al. 2018")
@full_precision
def gap(x: Tensor) -> Tensor:
    """mean(x): global average pooling."""
    return statistics.mean(x, DIM)


@register_op(KIND, "l2norm", source="SASE, published code; without its InstanceNorm")
@full_precision
def l2norm(x: Tensor) -> Tensor:
    """sqrt(mean x^2): root mean square (`l2norm_in` is the published form)."""
    return statistics.root_mean_square(x, DIM)


@register_op(KIND, "l2norm_in", source="SASE, published code")
class L2NormIN(nn.Module):
    """sqrt(sum y^2), y = a * InstanceNorm(x) + b: the published `l2norm`, for comparison.

    Being the norm of what was just normalised, it is sqrt(N * (a^2 * var / (var + eps) + b^2)),
    which hardly depends on x.
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
        self.scale = Affine((channels, 1, 1), device=device, dtype=dtype)

    @full_precision
    def forward(self, x: Tensor) -> Tensor:
        """Squeeze (B, C, H, W) to (B, C, 1, 1)."""
        normalised = F.layer_norm(x, x.shape[2:])  # as InstanceNorm2d, which refuses 1x1 maps
        return statistics.p_norm(self.scale(normalised), DIM, 2)


@register_op(KIND, "pnorm", source="SASE, published code")
@full_precision
def pnorm(x: Tensor) -> Tensor:
    """(sum x^4)^(1/4)."""
    return statistics.p_norm(x, DIM, 4)


@register_op(KIND, "gap_gmp", source="CBAM, Woo et al. 2018; mixing: SASE, published code")
class GapGmp(MeanAnd):
    """ReLU(w1 * mean(x) + w2 * max(x)): average and maximum pooling."""

    dim = DIM
    statistic = staticmethod(statistics.maximum)


@register_op(KIND, "gap_std", source="SRM, Lee et al. 2019; mixing: SASE, published code")
class GapStd(MeanAnd):
    """ReLU(w1 * mean(x) + w2 * std(x)): style pooling, unbiased std."""

    dim = DIM
    statistic = staticmethod(statistics.standard_deviation)


@register_op(KIND, "gap_skew", source="SASE, published code")
class GapSkew(MeanAnd):
    """ReLU(w1 * mean(x) + w2 * mean((x - mean(x))^3))."""

    dim = DIM
    statistic = staticmethod(statistics.third_moment)


@register_op(KIND, "cov", source="GSoP, Gao et al. 2019")
class Cov(nn.Module):
    """conv1x1(ReLU(row_conv(BN(cov(y))))), y = x averaged to D = max(1, C // 4) channels.

    The covariance is between the D channels, over the N positions.
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
        self.variables = max(1, channels // COV_REDUCTION)
        self.second_order = SecondOrder(
            self.variables, channels, affine=affine, device=device, dtype=dtype
        )

    @full_precision
    def forward(self, x: Tensor) -> Tensor:
        """Squeeze (B, C, H, W) to (B, C, 1, 1)."""
        pooled = F.adaptive_avg_pool1d(x.flatten(2).mT, self.variables).mT
        return self.second_order(pooled)
