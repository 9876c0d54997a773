"""The SASE attention block: six operations on the edges of one small DAG.

Paper: SASE, a search architecture of squeeze and excitation operations (channel and spatial).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from search_spaces.errors import UserError
from search_spaces.genotype import EDGE_KINDS, PUBLISHED, Genotype
from search_spaces.ops import build_op
from search_spaces.ops.kernels.mode import fused, is_fused
from search_spaces.ops.kernels.precision import full_precision
from search_spaces.ops.kernels.recalibrate import recalibrate
from search_spaces.ops.layers.batch_norm import BatchNorm2d
from search_spaces.ops.layers.conv import Conv2d
from search_spaces.ops.squeeze import FeatureMap, Squeeze

DEFAULT_SIZE = (8, 8)


class Join(nn.Module):
    """Join of the two spatial squeezes: s = ReLU(BN(conv1x1(concat(s_u, s_x)))).

    Shape: two maps (B, 1, H, W) to one of the same shape.

    Args:
        affine: Whether the batch norm has affine parameters; the supernet's has none.
    """

    def __init__(
        self,
        *,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(2, 1, (1, 1), device=device, dtype=dtype)
        self.norm = BatchNorm2d(1, affine=affine, device=device, dtype=dtype)

    def forward(self, refined: Tensor, plain: Tensor) -> Tensor:
        """Mix the map of the refined features with the map of the plain ones."""
        if not is_fused(refined):
            return torch.relu(self.norm(self.conv(torch.cat([refined, plain], dim=1))))
        # Torch's convolution of two channels to one is a hundred times slower (on a CPU).
        w1, w2 = self.conv.weight.to(refined.dtype).unbind(1)
        return torch.relu(self.norm(w1 * refined + w2 * plain))


class Edge(Protocol):
    """Protocol of what a block does on one edge."""

    @property
    def operations(self) -> Sequence[nn.Module]:
        """The operations that will be evaluated."""

    def __call__(self, x: Any) -> Tensor:
        """Evaluate them on a tensor or, on the edges of squeezes, on a `FeatureMap`."""


class Single:
    """An edge with one operation."""

    def __init__(self, operation: nn.Module) -> None:
        self.operations = (operation,)

    def __call__(self, x: Tensor | FeatureMap) -> Tensor:
        """Evaluate the operation."""
        return evaluate(self.operations[0], x)


def evaluate(operation: nn.Module, x: Tensor | FeatureMap) -> Tensor:
    """Evaluate one operation on a tensor, or on a map that expects it."""
    if not isinstance(x, FeatureMap):
        result: Tensor = operation(x)
    elif isinstance(operation, Squeeze):
        result = operation.squeeze(x)
    else:
        result = operation(x.tensor)
    return result


def attend(
    x: Tensor,
    channel_squeeze: Edge,
    channel_excite: Edge,
    refine_excite: Edge,
    refined_squeeze: Edge,
    spatial_squeeze: Edge,
    spatial_excite: Edge,
    *,
    join: Callable[[Tensor, Tensor], Tensor],
    balance: tuple[Tensor | float, Tensor | float] = (0.5, 0.5),
) -> Tensor:
    """Evaluate the block fused: x + x * (g_c + g_s) / 2, with each edge given as a function.

    The gates are small and their statistics overflow in half precision, so they are computed in
    float32 (or better), also under autocast; the feature map keeps its precision.

    Args:
        x: Feature map (B, C, H, W).
        join: Function that mixes the two spatial squeezes into s (B, 1, H, W).
        balance: Weights of the channel gate and of the spatial gate.

    Returns:
        The attended feature map (B, C, H, W), in the precision of `x`.
    """

    @full_precision
    def gates(x: Tensor) -> tuple[Tensor, Tensor]:
        features = FeatureMap(x)
        features.expect(channel_squeeze.operations)
        features.expect(spatial_squeeze.operations)
        features.expect_gated(refined_squeeze.operations)
        z = channel_squeeze(features)
        refined = features.gated(refine_excite(z))
        refined.expect(refined_squeeze.operations)
        s = join(refined_squeeze(refined), spatial_squeeze(features))
        return balance[0] * channel_excite(z), balance[1] * spatial_excite(s)

    with fused():
        return recalibrate(x, *gates(x))


class SASE(nn.Module):
    """The attention block of a genotype. Drop-in for timm's `attn_layer` and `se_layer`.

    Shape: (B, C, H, W) to the same, at any resolution. Parameters that have the shape of the map
    (of `affine` and `l2norm`) are stored for `size` and resized to the input map.

    Args:
        channels: Number of channels C.
        genotype: One-block genotype or its text form.
        size: Map size (H, W) that the block is built for.
        affine: Whether its batch norms have affine parameters.
        act_layer: Unused; accepted because timm passes it. The operations fix the activations.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        UserError: There are no channels, or the genotype has several stages or names an unknown
            operation.
    """

    def __init__(
        self,
        channels: int,
        genotype: Genotype | str = PUBLISHED,
        *,
        size: tuple[int, int] = DEFAULT_SIZE,
        affine: bool = True,
        act_layer: object = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise UserError(f"a block has at least 1 channel, got {channels}")
        self.genotype = Genotype.parse(genotype)
        self.edges = nn.ModuleDict(
            {
                edge: build_op(
                    EDGE_KINDS[edge], op, channels, size, affine=affine, device=device, dtype=dtype
                )
                for edge, op in self.genotype.edges().items()
            }
        )
        self.join = Join(affine=affine, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Attend to `x` (B, C, H, W)."""
        if is_fused(x):
            return attend(x, *map(Single, self.edges.values()), join=self.join)
        channel_gate, spatial_gate = self.gates(x)
        return recalibrate(x, 0.5 * channel_gate, 0.5 * spatial_gate)

    @full_precision
    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return g_c (B, C, 1, 1) and g_s (B, 1, H, W), in float32 or better."""
        edges = self.edges
        z = edges["channel_squeeze"](x)
        refined = edges["refined_squeeze"](edges["refine_excite"](z) * x)
        s = self.join(refined, edges["spatial_squeeze"](x))
        return edges["channel_excite"](z), edges["spatial_excite"](s)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """Keep the initial parameters where the weights are those of a host without attention."""
        if prefix and not any(key.startswith(prefix) for key in state_dict):
            warnings.warn(
                "the weights have no attention: SASE blocks keep their initial parameters",
                stacklevel=2,
            )
            state_dict |= self.state_dict(prefix=prefix)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def extra_repr(self) -> str:
        """Return the genotype, for the printed form of a network."""
        return str(self.genotype)
