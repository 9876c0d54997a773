"""The block operation by operation, as its formulas are written: the reference of the fast one.

Takes the modules for their parameters alone, and evaluates them with torch's own functions. Also
what the benchmarks compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.block import SASE
from search_spaces.genotype import EDGE_KINDS, EDGES
from search_spaces.mixture import EdgeWeights, Mixture
from search_spaces.ops.kernels import reference_statistics as statistics
from search_spaces.ops.kernels.precision import at_least_float32
from search_spaces.ops.layers.resized_affine import resize_grid
from search_spaces.super_block import SuperSASE

Plain = Callable[[nn.Module, Tensor], Tensor]
SPACE, CHANNELS = (2, 3), (1,)


def mean_and(statistic: Callable[[Tensor, tuple[int, ...]], Tensor], dim: tuple[int, ...]) -> Plain:
    def squeeze(op: nn.Module, x: Tensor) -> Tensor:
        w1, w2 = op.weight.unbind()
        return F.relu(w1 * x.mean(dim, keepdim=True) + w2 * statistic(x, dim))

    return squeeze


def squeezes(dim: tuple[int, ...]) -> dict[str, Plain]:
    return {
        "gap": lambda op, x: x.mean(dim, keepdim=True),
        "pnorm": lambda op, x: statistics.p_norm(x, dim, 4),
        "gap_gmp": mean_and(statistics.maximum, dim),
        "gap_std": mean_and(statistics.standard_deviation, dim),
        "gap_skew": mean_and(statistics.third_moment, dim),
    }


def second_order(op: nn.Module, variables: Tensor) -> Tensor:
    part = op.second_order
    normed = part.norm(statistics.covariance(variables).unsqueeze(3))
    rows = F.conv2d(normed, part.rows.weight, groups=variables.shape[1])
    return F.conv2d(F.relu(rows), part.mix.weight)


def channel_cov(op: nn.Module, x: Tensor) -> Tensor:
    return second_order(op, F.adaptive_avg_pool1d(x.flatten(2).mT, max(1, x.shape[1] // 4)).mT)


def spatial_cov(op: nn.Module, x: Tensor) -> Tensor:
    pooled = F.adaptive_avg_pool2d(x, 8).flatten(2).mT
    return F.adaptive_avg_pool2d(second_order(op, pooled).reshape(-1, 1, 8, 8), x.shape[2:])


def grid_affine(scale: nn.Module, x: Tensor) -> Tensor:
    return resize_grid(scale.weight, x.shape[2:]) * x + resize_grid(scale.bias, x.shape[2:])


def spatial_l2norm(op: nn.Module, x: Tensor) -> Tensor:
    return statistics.p_norm(grid_affine(op.scale, F.layer_norm(x, x.shape[2:])), CHANNELS, 2)


def channel_convs(op: nn.Module, z: Tensor) -> Tensor:
    z = z.transpose(1, 2)
    for index, conv in enumerate(op.convs):
        z = F.conv2d(F.relu(z) if index else z, conv.weight, padding=conv.padding)
    return z.transpose(1, 2).sigmoid()


def fc(op: nn.Module, z: Tensor) -> Tensor:
    return F.conv2d(F.relu(F.conv2d(z, op.reduce.weight)), op.expand.weight)


def spatial_convs(op: nn.Module, s: Tensor) -> Tensor:
    for index, conv in enumerate(op.convs):
        s = F.conv2d(F.relu(s) if index and op.relu else s, conv.weight, padding=conv.padding)
    return s.sigmoid()


PLAIN: dict[str, dict[str, Plain]] = {
    "channel_squeeze": {
        **squeezes(SPACE),
        "l2norm": lambda op, x: statistics.root_mean_square(x, SPACE),
        "cov": channel_cov,
    },
    "channel_excite": {
        **dict.fromkeys(("conv3", "conv5", "conv7", "conv3_x2", "conv3_x3"), channel_convs),
        **dict.fromkeys(("fc", "fc_min8"), fc),
        "affine": lambda op, z: (op.scale.weight * z + op.scale.bias).sigmoid(),
    },
    "spatial_squeeze": {**squeezes(CHANNELS), "l2norm": spatial_l2norm, "cov": spatial_cov},
    "spatial_excite": {
        **dict.fromkeys(
            ("conv3x3", "conv5x5", "conv7x7", "conv3x3_x2", "sep3", "sep5"), spatial_convs
        ),
        "affine": lambda op, s: grid_affine(op.scale, s).sigmoid(),
    },
}


def graph(
    x: Tensor,
    edges: Mapping[str, Callable[[Tensor], Tensor]],
    join: nn.Module,
    joins: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    (a, b), (c, d) = joins or ((0.5, 0.5), (0.5, 0.5))
    features = at_least_float32(x)
    z = edges["channel_squeeze"](features)
    refined = edges["refined_squeeze"](edges["refine_excite"](z) * features)
    maps = torch.cat([2 * a * refined, 2 * b * edges["spatial_squeeze"](features)], 1)
    s = F.relu(join.norm(F.conv2d(maps, join.conv.weight)))
    gate = c * edges["channel_excite"](z) + d * edges["spatial_excite"](s)
    return (x + x * gate).to(x.dtype)


def plain_block(block: SASE, x: Tensor) -> Tensor:
    """Evaluate a discrete block."""
    ops = block.genotype.edges()
    edges = {
        edge: lambda value, edge=edge: PLAIN[EDGE_KINDS[edge]][ops[edge]](block.edges[edge], value)
        for edge in EDGES
    }
    return graph(x, edges, block.join)


def plain_super_block(
    block: SuperSASE, x: Tensor, mixture: Mixture | Sequence[EdgeWeights]
) -> Tensor:
    """Evaluate a supernet's block, all of whose weights are vectors."""
    if not isinstance(mixture, Mixture):
        mixture = Mixture(mixture)
    weights = dict(zip(EDGES, mixture.edges, strict=True))

    def edge(name: str) -> Callable[[Tensor], Tensor]:
        plain = [PLAIN[EDGE_KINDS[name]][op] for op in block.choices[name]]

        def evaluate(value: Tensor) -> Tensor:
            outputs = [f(op, value) for f, op in zip(plain, block.edges[name], strict=True)]
            pairs = zip(weights[name].unbind(), outputs, strict=True)
            return torch.stack([weight * output for weight, output in pairs]).sum(0)

        return evaluate

    return graph(x, {name: edge(name) for name in EDGES}, block.join, mixture.joins)


class PlainSuperSASE(SuperSASE):
    """The supernet's block, evaluated operation by operation."""

    def forward(self, x: Tensor, mixture: Mixture | Sequence[EdgeWeights]) -> Tensor:
        """As the fast one."""
        return plain_super_block(self, x, mixture)


class PlainSASE(SASE):
    """The discrete block, evaluated operation by operation."""

    def forward(self, x: Tensor) -> Tensor:
        """As the fast one."""
        return plain_block(self, x)
