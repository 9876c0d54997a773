"""Spatial excitations: one number per position to the gate of that position.

Shapes: (B, 1, H, W) to (B, 1, H, W). Convolutions have one channel, no bias, and keep the size.

Sources:
    CBAM  Woo et al., Convolutional Block Attention Module, ECCV 2018,
          https://arxiv.org/abs/1807.06521
    SGE   Li et al., Spatial Group-wise Enhance, 2019, https://arxiv.org/abs/1905.09646
    SASE  the published code of the search space
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.ops.kernels.precision import full_precision
from search_spaces.ops.layers.conv import MapConv2d, convolve_map, stack_kernels
from search_spaces.ops.layers.resized_affine import GridAffine
from search_spaces.ops.operation_module import OperationModule
from search_spaces.ops.registry import register_op

KIND = "spatial_excite"


class SpatialConv(OperationModule):
    """sigmoid of one convolution for each of `kernels`, ReLU between if `relu`."""

    kernels: ClassVar[tuple[tuple[int, int], ...]]
    relu: ClassVar[bool] = True

    def build(self, channels: int, size: tuple[int, int], affine: bool, **factory: Any) -> None:
        """Make the parameters."""
        self.convs = nn.ModuleList(MapConv2d(kernel, **factory) for kernel in self.kernels)

    @full_precision
    def forward(self, s: Tensor) -> Tensor:
        """Excite (B, 1, H, W)."""
        for index, conv in enumerate(self.convs):
            s = conv(F.relu(s) if index and self.relu else s)
        return s.sigmoid()

    def first_kernel(self) -> Tensor:
        """Return the one kernel of the convolutions before the first ReLU or the sigmoid."""
        first, *others = (cast(Tensor, conv.weight) for conv in self.convs)
        return first if self.relu else math.prod(others, start=first)

    @staticmethod
    def together(operations: Sequence[SpatialConv], s: Tensor) -> Tensor:
        """Excite (B, 1, H, W) by O operations at once: (B, O, H * W).

        All first kernels are padded to one size and applied as one. Kernels with no ReLU between
        them are combined into one kernel, their outer product.
        """
        kernels = [op.first_kernel() for op in operations]
        maps = list(convolve_map(s, stack_kernels(kernels).to(s.dtype)).split(1, 1))
        for index, op in enumerate(operations):
            for conv in list(op.convs)[1:] if op.relu else ():
                maps[index] = conv(F.relu(maps[index]))
        return torch.cat(maps, 1).sigmoid().flatten(2)


@register_op(KIND, "conv3x3", source="CBAM, Woo et al. 2018")
class Conv3x3(SpatialConv):
    """sigmoid(conv3x3(s))."""

    kernels = ((3, 3),)


@register_op(KIND, "conv5x5", source="CBAM, Woo et al. 2018")
class Conv5x5(SpatialConv):
    """sigmoid(conv5x5(s))."""

    kernels = ((5, 5),)


@register_op(KIND, "conv7x7", source="CBAM, Woo et al. 2018")
class Conv7x7(SpatialConv):
    """sigmoid(conv7x7(s))."""

    kernels = ((7, 7),)


@register_op(KIND, "conv3x3_x2", source="SASE, published code")
class Conv3x3X2(SpatialConv):
    """sigmoid(conv3x3(ReLU(conv3x3(s))))."""

    kernels = ((3, 3), (3, 3))


@register_op(KIND, "sep3", source="SASE, published code")
class Sep3(SpatialConv):
    """sigmoid(conv3x1(conv1x3(s)))."""

    kernels = ((1, 3), (3, 1))
    relu = False


@register_op(KIND, "sep5", source="SASE, published code")
class Sep5(SpatialConv):
    """sigmoid(conv5x1(conv1x5(s)))."""

    kernels = ((1, 5), (5, 1))
    relu = False


@register_op(KIND, "affine", source="after SGE, Li et al. 2019; SASE, published code")
class SpatialAffine(OperationModule):
    """sigmoid(a * s + b), a and b per position."""

    def build(self, channels: int, size: tuple[int, int], affine: bool, **factory: Any) -> None:
        """Make the parameters."""
        self.scale = GridAffine(size, **factory)

    @full_precision
    def forward(self, s: Tensor) -> Tensor:
        """Excite (B, 1, H, W)."""
        return self.scale(s).sigmoid()
