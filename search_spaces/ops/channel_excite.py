"""Channel excitations: one number per channel to the gate of that channel.

Shapes: (B, C, 1, 1) to (B, C, 1, 1). Convolutions have no bias.

Sources:
    SE    Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, https://arxiv.org/abs/1709.01507
    ECA   Wang et al., Efficient Channel Attention, CVPR 2020, https://arxiv.org/abs/1910.03151
    SASE  the published code of the search space
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.ops.kernels.mode import is_fused
from search_spaces.ops.kernels.precision import full_precision
from search_spaces.ops.layers.conv import Conv2d, convolve_channels, mix_channels, stack_kernels
from search_spaces.ops.layers.resized_affine import Affine
from search_spaces.ops.operation_module import OperationModule
from search_spaces.ops.registry import register_op

KIND = "channel_excite"
FC_REDUCTION = 16


class ChannelConv(OperationModule):
    """sigmoid of `depth` convolutions of `kernel` weights along the channels, ReLU between."""

    kernel: ClassVar[int]
    depth: ClassVar[int] = 1

    def build(self, channels: int, size: tuple[int, int], affine: bool, **factory: Any) -> None:
        """Make the parameters."""
        self.convs = nn.ModuleList(
            Conv2d(1, 1, (self.kernel, 1), same=True, **factory) for _ in range(self.depth)
        )

    @full_precision
    def forward(self, z: Tensor) -> Tensor:
        """Excite (B, C, 1, 1)."""
        if is_fused(z):
            return self.together([self], z).view_as(z)
        z = z.transpose(1, 2)
        for level, conv in enumerate(self.convs):
            z = conv(F.relu(z) if level else z)
        return z.transpose(1, 2).sigmoid()

    @staticmethod
    def together(operations: Sequence[ChannelConv], z: Tensor) -> Tensor:
        """Excite (B, C, 1, 1) by O operations, layer by layer: (B, O, C)."""
        rows = z.flatten(1).unsqueeze(1)
        gates: dict[ChannelConv, Tensor] = {}
        level = 0
        while left := [op for op in operations if op.depth > level]:
            kernels = stack_kernels([cast(Tensor, op.convs[level].weight) for op in left])
            rows = convolve_channels(rows, kernels.flatten(1).to(z.dtype))
            level += 1
            pairs = list(zip(left, rows.split(1, 1), strict=True))
            gates |= {op: row for op, row in pairs if op.depth == level}
            deeper = [row for op, row in pairs if op.depth > level]
            if deeper:
                rows = F.relu(torch.cat(deeper, 1))
        return torch.cat([gates[op] for op in operations], 1).sigmoid()


@register_op(KIND, "conv3", source="ECA, Wang et al. 2020")
class Conv3(ChannelConv):
    """sigmoid(conv(z)), 3 weights along the channels."""

    kernel = 3


@register_op(KIND, "conv5", source="ECA, Wang et al. 2020")
class Conv5(ChannelConv):
    """sigmoid(conv(z)), 5 weights along the channels."""

    kernel = 5


@register_op(KIND, "conv7", source="ECA, Wang et al. 2020")
class Conv7(ChannelConv):
    """sigmoid(conv(z)), 7 weights along the channels."""

    kernel = 7


@register_op(KIND, "conv3_x2", source="SASE, published code; after ECA, Wang et al. 2020")
class Conv3X2(ChannelConv):
    """sigmoid(conv(ReLU(conv(z)))), 3 weights each along the channels."""

    kernel = 3
    depth = 2


@register_op(KIND, "conv3_x3", source="SASE, published code; after ECA, Wang et al. 2020")
class Conv3X3(ChannelConv):
    """sigmoid(conv(ReLU(conv(ReLU(conv(z)))))), 3 weights each along the channels."""

    kernel = 3
    depth = 3


@register_op(KIND, "fc", source="SE, Hu et al. 2018; linear at the end: SASE, published code")
class Fc(OperationModule):
    """V ReLU(U z), U and V 1x1 convolutions over max(1, C // 16) hidden channels; no sigmoid."""

    fewest_hidden: ClassVar[int] = 1

    def build(self, channels: int, size: tuple[int, int], affine: bool, **factory: Any) -> None:
        """Make the parameters."""
        hidden = max(self.fewest_hidden, channels // FC_REDUCTION)
        self.reduce = Conv2d(channels, hidden, (1, 1), **factory)
        self.expand = Conv2d(hidden, channels, (1, 1), **factory)

    @full_precision
    def forward(self, z: Tensor) -> Tensor:
        """Excite (B, C, 1, 1)."""
        if is_fused(z):
            return mix_channels(F.relu(mix_channels(z, self.reduce.weight)), self.expand.weight)
        return self.expand(F.relu(self.reduce(z)))

    @staticmethod
    def together(operations: Sequence[Fc], z: Tensor) -> Tensor:
        """Excite (B, C, 1, 1) by O operations at once: (B, O, C)."""
        reduce = [op.reduce.weight for op in operations]
        hidden = F.relu(F.linear(z.flatten(1), torch.cat(reduce).flatten(1).to(z.dtype)))
        parts = zip(operations, hidden.split([len(weight) for weight in reduce], 1), strict=True)
        gates = [F.linear(part, op.expand.weight.flatten(1).to(z.dtype)) for op, part in parts]
        return torch.stack(gates, 1)


@register_op(KIND, "fc_min8", source="SE, Hu et al. 2018; at least 8 hidden channels: as in timm")
class FcMin8(Fc):
    """`fc` over max(8, C // 16) hidden channels, as SE has in timm: for narrow hosts."""

    fewest_hidden = 8


@register_op(KIND, "affine", source="SASE, published code")
class ChannelAffine(OperationModule):
    """sigmoid(a * z + b), a and b per channel."""

    def build(self, channels: int, size: tuple[int, int], affine: bool, **factory: Any) -> None:
        """Make the parameters."""
        self.scale = Affine((channels, 1, 1), **factory)

    @full_precision
    def forward(self, z: Tensor) -> Tensor:
        """Excite (B, C, 1, 1)."""
        return self.scale(z).sigmoid()

    @staticmethod
    def together(operations: Sequence[ChannelAffine], z: Tensor) -> Tensor:
        """Excite (B, C, 1, 1) by O operations at once: (B, O, C)."""
        weight = torch.stack([op.scale.weight.flatten() for op in operations]).to(z.dtype)
        bias = torch.stack([op.scale.bias.flatten() for op in operations]).to(z.dtype)
        return torch.addcmul(bias, weight, z.flatten(1).unsqueeze(1)).sigmoid()
