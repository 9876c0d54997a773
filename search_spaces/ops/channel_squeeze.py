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

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.ops.kernels import reference_statistics
from search_spaces.ops.kernels.channel_statistics import groups_of
from search_spaces.ops.kernels.precision import full_precision
from search_spaces.ops.layers.resized_affine import Affine
from search_spaces.ops.layers.second_order import SecondOrder
from search_spaces.ops.registry import register_op
from search_spaces.ops.squeeze import FeatureMap, MeanAnd, Squeeze

KIND = "channel_squeeze"


@register_op(KIND, "gap", source="SE, Hu et al. 2018")
class Gap(Squeeze):
    """mean(x): global average pooling."""

    over_space = frozenset({"mean"})

    def squeeze(self, features: FeatureMap) -> Tensor:
        """Squeeze to (B, C, 1, 1)."""
        return features.over_space["mean"]


@register_op(KIND, "l2norm", source="SASE, published code; without its InstanceNorm")
class L2Norm(Squeeze):
    """sqrt(mean x^2): root mean square (`l2norm_in` is the published form)."""

    over_space = frozenset({"root_mean_square"})

    def squeeze(self, features: FeatureMap) -> Tensor:
        """Squeeze to (B, C, 1, 1)."""
        return features.over_space["root_mean_square"]


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
        return reference_statistics.p_norm(self.scale(normalised), (2, 3), 2)


@register_op(KIND, "pnorm", source="SASE, published code")
class PNorm(Squeeze):
    """(sum x^4)^(1/4)."""

    over_space = frozenset({"p_norm"})

    def squeeze(self, features: FeatureMap) -> Tensor:
        """Squeeze to (B, C, 1, 1)."""
        return features.over_space["p_norm"]


class MeanAndOther(MeanAnd):
    """ReLU(w1 * mean(x) + w2 * another statistic of x)."""

    other: ClassVar[str]

    def __init_subclass__(cls) -> None:
        """Read the mean and the other."""
        cls.over_space = frozenset({"mean", cls.other})

    def squeeze(self, features: FeatureMap) -> Tensor:
        """Squeeze to (B, C, 1, 1)."""
        return self.mix(features.over_space["mean"], features.over_space[self.other])

    @staticmethod
    def together(operations: Sequence[MeanAndOther], features: FeatureMap) -> Tensor:
        """Squeeze by O operations at once: (B, O, C)."""
        mean = features.over_space["mean"]
        others = [features.over_space[op.other] for op in operations]
        weight = torch.stack([op.weight for op in operations])[:, :, None]
        rows = torch.stack([other.flatten(1) for other in others], 1)
        return F.relu(weight[:, 0] * mean.flatten(1).unsqueeze(1) + weight[:, 1] * rows)


@register_op(KIND, "gap_gmp", source="CBAM, Woo et al. 2018; mixing: SASE, published code")
class GapGmp(MeanAndOther):
    """ReLU(w1 * mean(x) + w2 * max(x)): average and maximum pooling."""

    other = "maximum"


@register_op(KIND, "gap_std", source="SRM, Lee et al. 2019; mixing: SASE, published code")
class GapStd(MeanAndOther):
    """ReLU(w1 * mean(x) + w2 * std(x)): style pooling, unbiased std."""

    other = "standard_deviation"


@register_op(KIND, "gap_skew", source="SASE, published code")
class GapSkew(MeanAndOther):
    """ReLU(w1 * mean(x) + w2 * mean((x - mean(x))^3))."""

    other = "third_moment"


@register_op(KIND, "cov", source="GSoP, Gao et al. 2019")
class Cov(Squeeze):
    """conv1x1(ReLU(row_conv(BN(cov(y))))), y = x averaged to D = max(1, C // 4) channels.

    The covariance is between the D channels, over the N positions.
    """

    over_space = frozenset({"groups"})

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        *,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels, size)
        self.second_order = SecondOrder(
            groups_of(channels), channels, affine=affine, device=device, dtype=dtype
        )

    def squeeze(self, features: FeatureMap) -> Tensor:
        """Squeeze to (B, C, 1, 1)."""
        return self.second_order(features.over_space["groups"].flatten(2))
