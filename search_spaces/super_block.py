"""The supernet block: all operations of each edge, mixed by weights that it gets as an argument.

DARTS (Liu et al. 2019, eq. 2): an edge gives sum_o w_o * o(x). The algorithm decides how the
weights are computed (softmax of alpha, Gumbel samples, one path, what pruning left).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.block import DEFAULT_SIZE, SASE, Edge, Join, attend, evaluate
from search_spaces.errors import unknown_name
from search_spaces.genotype import EDGE_KINDS, EDGES, Genotype
from search_spaces.mixture import EdgeWeights, Mixture
from search_spaces.ops import build_op, load_operations
from search_spaces.ops.kernels.autograd import constant
from search_spaces.ops.squeeze import FeatureMap
from search_spaces.space import SearchSpace


class SuperSASE(nn.Module):
    """The attention block with every operation of the space on every edge.

    Shape: (B, C, H, W) to the same. Batch norms have no affine parameters, as in DARTS: these
    would rescale the operations and so change what the weights mean.

    Args:
        channels: Number of channels C.
        space: Search space; all operations of each edge are built.
        size: Map size (H, W) that the block is built for.
        affine: Whether batch norms have affine parameters.

    Raises:
        UserError: The space names an unknown operation.
    """

    def __init__(
        self,
        channels: int,
        space: SearchSpace,
        *,
        size: tuple[int, int] = DEFAULT_SIZE,
        affine: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        load_operations(space)
        self.channels = channels
        self.size = size
        self.choices = {edge: tuple(space.sets[space.edges[edge]]) for edge in EDGES}
        self.edges = nn.ModuleDict(
            {
                edge: nn.ModuleList(
                    build_op(
                        EDGE_KINDS[edge],
                        op,
                        channels,
                        size,
                        affine=affine,
                        device=device,
                        dtype=dtype,
                    )
                    for op in ops
                )
                for edge, ops in self.choices.items()
            }
        )
        self.join = Join(affine=affine, device=device, dtype=dtype)

    def forward(self, x: Tensor, mixture: Mixture | Sequence[EdgeWeights]) -> Tensor:
        """Attend to `x` with six edge weights, in the order of `EDGES`."""
        if not isinstance(mixture, Mixture):
            mixture = Mixture(mixture)
        squeeze, excite, refine, *others = (
            _MixedEdge(edge, operations.children(), weights)
            for (edge, operations), weights in zip(self.edges.items(), mixture.edges, strict=True)
        )
        edges = [squeeze, *_side_by_side(excite, refine), *others]
        if mixture.joins is None:
            return attend(x, *edges, join=self.join)
        squeezes, gates = mixture.joins
        return attend(
            x,
            *edges,
            join=lambda refined, plain: self.join(
                2 * squeezes[0] * refined, 2 * squeezes[1] * plain
            ),
            balance=(gates[0], gates[1]),
        )

    def extract(self, genotype: Genotype, *, inherit: bool = True) -> SASE:
        """Return the discrete block of a one-block genotype.

        Args:
            inherit: Whether the supernet's parameters and running statistics are copied; otherwise
                the block starts with fresh ones. Batch norms get affine parameters at the identity.

        Raises:
            UserError: The genotype has several stages, or an operation that is not in the space.
        """
        for edge, op in genotype.edges().items():
            if op not in self.choices[edge]:
                raise unknown_name(f"operation of edge {edge!r}", op, self.choices[edge])
        parameter = next(self.parameters())
        block = SASE(
            self.channels, genotype, size=self.size, device=parameter.device, dtype=parameter.dtype
        )
        if inherit:
            for edge, op in genotype.edges().items():
                source = self.edges[edge][self.choices[edge].index(op)]  # type: ignore[index]
                _copy_state(source, block.edges[edge])
            _copy_state(self.join, block.join)
        return block


class _MixedEdge:
    """One edge as a function: the weighted sum of its operations."""

    def __init__(self, edge: str, operations: Iterable[nn.Module], weights: EdgeWeights) -> None:
        self.of_channels = EDGE_KINDS[edge].startswith("channel")
        every = list(operations)
        self.weights: Tensor | list[Tensor | float]
        if isinstance(weights, Tensor):
            if len(weights) != len(every):
                raise ValueError(f"edge {edge!r} has {len(every)} operations, not {len(weights)}")
            self.weights, self.operations = weights, every
        else:
            self.weights = list(weights.values())
            self.operations = [every[index] for index in weights]

    def __call__(self, x: Tensor | FeatureMap) -> Tensor:
        if len(self.operations) == 1:
            return self.weights[0] * evaluate(self.operations[0], x)
        stacked, order = _evaluate_all(self.operations, x)
        mixed = torch.bmm(self.row(stacked, order).expand(len(stacked), 1, -1), stacked)
        if not isinstance(x, FeatureMap):
            return mixed.view(x.shape)
        batch, channels, height, width = x.features.shape
        return (
            mixed.view(batch, channels, 1, 1)
            if self.of_channels
            else mixed.view(batch, 1, height, width)
        )

    def row(self, like: Tensor, order: Sequence[int] | None = None) -> Tensor:
        """Return the weights as (1, O), in the order given, on the device of `like`."""
        weights = self.weights
        if not isinstance(weights, Tensor):
            weights = torch.stack([torch.as_tensor(w, device=like.device) for w in weights])
        weights = weights.to(like.device, like.dtype)
        if order is not None:
            weights = weights.index_select(0, _as_index(tuple(order), like.device))
        return weights.unsqueeze(0)


def _side_by_side(first: _MixedEdge, second: _MixedEdge) -> list[Edge]:
    """Return two edges that read the same numbers and are evaluated together at the first call."""
    if len(first.operations) == 1 or len(second.operations) == 1:
        return [first, second]
    found: list[Tensor] = []

    def both(z: Tensor) -> list[Tensor]:
        if not found:
            stacked, order = _evaluate_all([*first.operations, *second.operations], z)
            weights = torch.block_diag(first.row(stacked), second.row(stacked))
            weights = weights.index_select(1, _as_index(tuple(order), stacked.device))
            mixed = torch.bmm(weights.expand(len(stacked), -1, -1), stacked)
            found.extend(part.reshape(z.shape) for part in mixed.unbind(1))
        return found

    return [_Half(first, lambda z: both(z)[0]), _Half(second, lambda z: both(z)[1])]


class _Half:
    """One of two edges that are evaluated together."""

    def __init__(self, edge: _MixedEdge, function: Callable[[Tensor], Tensor]) -> None:
        self.operations = edge.operations
        self.function = function

    def __call__(self, x: Any) -> Tensor:
        return self.function(x)


def _evaluate_all(
    operations: Sequence[nn.Module], x: Tensor | FeatureMap
) -> tuple[Tensor, list[int]]:
    """Return the outputs of O operations, (B, O, numbers), and their order."""
    rows: list[Tensor] = []
    order: list[int] = []
    for together, indices in _groups(operations).items():
        order += indices
        if len(indices) > 1:
            rows.append(together([operations[index] for index in indices], x))
        else:
            rows.append(evaluate(operations[indices[0]], x).flatten(1).unsqueeze(1))
    return torch.cat(rows, 1), order


def _groups(operations: Sequence[nn.Module]) -> dict[Any, list[int]]:
    """Group operations by the function that evaluates several of their kind together."""
    groups: dict[Any, list[int]] = {}
    for index, operation in enumerate(operations):
        kind: Any = type(operation)
        groups.setdefault(_together(kind) or operation, []).append(index)
    return groups


@cache
def _together(kind: Any) -> Callable[..., Tensor] | None:
    owner = next((base for base in kind.__mro__ if "together" in vars(base)), None)
    # A subclass that overrides the computation is evaluated separately.
    if owner is None or any(
        getattr(kind, name, None) is not getattr(owner, name, None)
        for name in ("forward", "squeeze")
    ):
        return None
    function: Callable[..., Tensor] = vars(owner)["together"].__func__
    return function


@constant
def _as_index(order: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(order, device=device)


def _copy_state(source: nn.Module, target: nn.Module) -> None:
    """Copy parameters and buffers; a norm without affine parameters leaves the identity."""
    state = {**target.state_dict(), **source.state_dict()}
    target.load_state_dict(state)
