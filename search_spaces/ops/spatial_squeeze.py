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

from typing import Any

import torch
from torch import Tensor

from search_spaces.ops.kernels import reference_statistics
from search_spaces.ops.kernels.channel_statistics import GRID_SIDE
from search_spaces.ops.kernels.position_formulas import norm_of_affine
from search_spaces.ops.layers.pooling import pool_map
from search_spaces.ops.layers.resized_affine import GridAffine
from search_spaces.ops.layers.second_order import SecondOrder
from search_spaces.ops.registry import register_op
from search_spaces.ops.squeeze import (
    CHANNELS,
    LAYER_NORM_EPS,
    FeatureMap,
    MeanAnd,
    Squeeze,
    Statistic,
    spread_from_grid,
)

KIND = "spatial_squeeze"


@register_op(KIND, "gap", source="CBAM, Woo et al. 2018")
class Gap(Statistic):
    """mean(x): average over the channels."""

    over_channels = frozenset({"mean"})


@register_op(KIND, "l2norm", source="SASE, published code")
class L2Norm(Squeeze):
    """sqrt(sum y^2), y = a * LayerNorm(x) + b: normalised over H, W, with a and b per position."""

    over_space = frozenset({"mean", "standard_deviation"})
    reads_normalised = True

    def build(self, channels: int, size: tuple[int, int], affine: bool, **factory: Any) -> None:
        """Make the parameters."""
        self.channels = channels
        self.scale = GridAffine(size, **factory)

    def squeeze(self, features: FeatureMap) -> Tensor:
        """Squeeze to (B, 1, H, W)."""
        x = features.features
        a, b = self.scale.at((x.shape[2], x.shape[3]), x.dtype)
        return norm_of_affine(a, b, x.shape[1], *features.normalised)

    def plain(self, x: Tensor) -> Tensor:
        """Squeeze to (B, 1, H, W)."""
        # The layer norm as a group norm, which takes no sizes: they may be symbols of a tracer.
        normalised = torch.group_norm(x, self.channels, eps=LAYER_NORM_EPS)
        return reference_statistics.p_norm(self.scale(normalised), CHANNELS, 2)


@register_op(KIND, "pnorm", source="SASE, published code")
class PNorm(Statistic):
    """(sum x^4)^(1/4)."""

    over_channels = frozenset({"p_norm"})


@register_op(KIND, "gap_gmp", source="CBAM, Woo et al. 2018; mixing: SASE, published code")
class GapGmp(MeanAnd):
    """ReLU(w1 * mean(x) + w2 * max(x))."""

    over_channels = frozenset({"mean", "maximum"})


@register_op(KIND, "gap_std", source="after SRM, Lee et al. 2019; SASE, published code")
class GapStd(MeanAnd):
    """ReLU(w1 * mean(x) + w2 * std(x)), unbiased std."""

    over_channels = frozenset({"mean", "standard_deviation"})


@register_op(KIND, "gap_skew", source="SASE, published code")
class GapSkew(MeanAnd):
    """ReLU(w1 * mean(x) + w2 * mean((x - mean(x))^3))."""

    over_channels = frozenset({"mean", "third_moment"})


@register_op(KIND, "cov", source="GSoP, Gao et al. 2019")
class Cov(Squeeze):
    """conv1x1(ReLU(row_conv(BN(cov(y))))), y = x averaged to 8 x 8; then averaged to H x W.

    The covariance is between the 64 positions, over the C channels.
    """

    over_space = frozenset({"grid"})

    def build(self, channels: int, size: tuple[int, int], affine: bool, **factory: Any) -> None:
        """Make the parameters."""
        positions = GRID_SIDE**2
        self.second_order = SecondOrder(positions, positions, affine=affine, **factory)

    def squeeze(self, features: FeatureMap) -> Tensor:
        """Squeeze to (B, 1, H, W)."""
        cells = self.second_order(features.grid.flatten(2).mT).reshape(-1, 1, GRID_SIDE, GRID_SIDE)
        height, width = features.features.shape[2:]
        return spread_from_grid(cells, (height, width))

    def plain(self, x: Tensor) -> Tensor:
        """Squeeze to (B, 1, H, W)."""
        grid = pool_map(x, GRID_SIDE, GRID_SIDE)
        cells = self.second_order(grid.flatten(2).transpose(1, 2))
        cells = cells.reshape(-1, 1, GRID_SIDE, GRID_SIDE)
        return pool_map(cells, x.shape[2], x.shape[3])
