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

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from search_spaces.ops.kernels import reference_statistics
from search_spaces.ops.kernels.channel_statistics import groups_of
from search_spaces.ops.kernels.precision import full_precision
from search_spaces.ops.layers.pooling import pool_row
from search_spaces.ops.layers.resized_affine import Affine
from search_spaces.ops.layers.second_order import SecondOrder
from search_spaces.ops.operation_module import OperationModule
from search_spaces.ops.registry import register_op
from search_spaces.ops.squeeze import FeatureMap, MeanAnd, Squeeze, Statistic

KIND = "channel_squeeze"


@register_op(KIND, "gap", source="SE, Hu et al. 2018")
class Gap(Statistic):
    """mean(x): global average pooling."""

    over_space = frozenset({"mean"})


@register_op(KIND, "l2norm", source="SASE, published code; without its InstanceNorm")
class L2Norm(Statistic):
    """sqrt(mean x^2): root mean square (`l2norm_in` is the published form)."""

    over_space = frozenset({"root_mean_square"})


@register_op(KIND, "l2norm_in", source="SASE, published code")
class L2NormIN(OperationModule):
    """sqrt(sum y^2), y = a * InstanceNorm(x) + b: the published `l2norm`, for comparison.

    As the norm of a normalised map, it equals sqrt(N * (a^2 * var / (var + eps) + b^2)), which
    hardly depends on x.
    """

    def build(self, channels: int, size: tuple[int, int], affine: bool, **factory: Any) -> None:
        """Make the parameters."""
        self.scale = Affine((channels, 1, 1), **factory)

    @full_precision
    def forward(self, x: Tensor) -> Tensor:
        """Squeeze (B, C, H, W) to (B, C, 1, 1)."""
        normalised = F.layer_norm(x, x.shape[2:])  # equals InstanceNorm2d, which rejects 1x1 maps
        return reference_statistics.p_norm(self.scale(normalised), (2, 3), 2)


@register_op(KIND, "pnorm", source="SASE, published code")
class PNorm(Statistic):
    """(sum x^4)^(1/4)."""

    over_space = frozenset({"p_norm"})


@register_op(KIND, "gap_gmp", source="CBAM, Woo et al. 2018; mixing: SASE, published code")
class GapGmp(MeanAnd):
    """ReLU(w1 * mean(x) + w2 * max(x)): average and maximum pooling."""

    over_space = frozenset({"mean", "maximum"})


@register_op(KIND, "gap_std", source="SRM, Lee et al. 2019; mixing: SASE, published code")
class GapStd(MeanAnd):
    """ReLU(w1 * mean(x) + w2 * std(x)): style pooling, unbiased std."""

    over_space = frozenset({"mean", "standard_deviation"})


@register_op(KIND, "gap_skew", source="SASE, published code")
class GapSkew(MeanAnd):
    """ReLU(w1 * mean(x) + w2 * mean((x - mean(x))^3))."""

    over_space = frozenset({"mean", "third_moment"})


@register_op(KIND, "cov", source="GSoP, Gao et al. 2019")
class Cov(Squeeze):
    """conv1x1(ReLU(row_conv(BN(cov(y))))), y = x averaged to D = max(1, C // 4) channels.

    The covariance is between the D channels, over the N positions.
    """

    over_space = frozenset({"groups"})

    def build(self, channels: int, size: tuple[int, int], affine: bool, **factory: Any) -> None:
        """Make the parameters."""
        self.second_order = SecondOrder(groups_of(channels), channels, affine=affine, **factory)

    def squeeze(self, features: FeatureMap) -> Tensor:
        """Squeeze to (B, C, 1, 1)."""
        return self.second_order(features.over_space["groups"].flatten(2))

    def plain(self, x: Tensor) -> Tensor:
        """Squeeze to (B, C, 1, 1)."""
        variables = self.second_order.variables
        return self.second_order(pool_row(x.flatten(2).transpose(1, 2), variables).transpose(1, 2))
