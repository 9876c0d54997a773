"""The supernet's block operation by operation, in plain torch: the reference of the fused one.

Also what the benchmarks compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.genotype import EDGES
from search_spaces.mixture import EdgeWeights, Mixture
from search_spaces.ops.kernels.precision import at_least_float32
from search_spaces.super_block import SuperSASE


def plain_super_block(
    block: SuperSASE, x: Tensor, mixture: Mixture | Sequence[EdgeWeights]
) -> Tensor:
    """Evaluate a supernet's block, all of whose weights are vectors."""
    if not isinstance(mixture, Mixture):
        mixture = Mixture(mixture)
    weights = dict(zip(EDGES, mixture.edges, strict=True))

    def edge(name: str) -> Callable[[Tensor], Tensor]:
        def evaluate(value: Tensor) -> Tensor:
            pairs = zip(weights[name].unbind(), block.edges[name], strict=True)
            return torch.stack([weight * op(value) for weight, op in pairs]).sum(0)

        return evaluate

    edges = {name: edge(name) for name in EDGES}
    (a, b), (c, d) = mixture.joins or ((0.5, 0.5), (0.5, 0.5))
    features = at_least_float32(x)
    z = edges["channel_squeeze"](features)
    refined = edges["refined_squeeze"](edges["refine_excite"](z) * features)
    maps = torch.cat([2 * a * refined, 2 * b * edges["spatial_squeeze"](features)], 1)
    s = F.relu(block.join.norm(F.conv2d(maps, block.join.conv.weight)))
    gate = c * edges["channel_excite"](z) + d * edges["spatial_excite"](s)
    return (x + x * gate).to(x.dtype)


class PlainSuperSASE(SuperSASE):
    """The supernet's block, evaluated operation by operation."""

    def forward(self, x: Tensor, mixture: Mixture | Sequence[EdgeWeights]) -> Tensor:
        """As the fused one."""
        return plain_super_block(self, x, mixture)
