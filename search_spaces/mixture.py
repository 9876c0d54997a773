"""Weights of the operations on every edge of a supernet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from search_spaces.genotype import EDGES, Genotype
from search_spaces.space import SearchSpace

EdgeWeights = Tensor | Mapping[int, Tensor | float]
"""Weights of one edge's operations: a vector over all of them, or a mapping from the position of
an operation to its weight. Operations that a mapping leaves out are not evaluated at all."""


@dataclass(frozen=True)
class Mixture:
    """The weights of a whole supernet in one step.

    Args:
        edges: One `EdgeWeights` per decision in `SearchSpace.variables`.
        joins: Weights over (s_u, s_x) and over (g_c, g_s), two vectors of length 2 that PC-DARTS
            learns (edge normalisation, Xu et al. 2020); None leaves both sides unweighted.
    """

    edges: Sequence[EdgeWeights]
    joins: tuple[Tensor, Tensor] | None = None

    def stage(self, index: int) -> Mixture:
        """Return the part that the blocks of one stage read."""
        if len(self.edges) == len(EDGES):
            return self
        start = index * len(EDGES)
        return Mixture(self.edges[start : start + len(EDGES)], self.joins)

    def tensors(self) -> list[Tensor] | None:
        """Return all weights, of edges and then of joins; None where an edge is a mapping."""
        edges = [weights for weights in self.edges if isinstance(weights, Tensor)]
        return [*edges, *(self.joins or ())] if len(edges) == len(self.edges) else None

    def with_tensors(self, tensors: Sequence[Tensor]) -> Mixture:
        """Return the mixture of other `tensors` in the places of its own."""
        edges, joins = tensors[: len(self.edges)], tensors[len(self.edges) :]
        return Mixture(edges, (joins[0], joins[1]) if joins else None)

    @classmethod
    def of(cls, genotype: Genotype, space: SearchSpace) -> Mixture:
        """Return the mixture that evaluates exactly the operations of one genotype."""
        space.validate(genotype)
        variables = zip(space.variables, genotype.ops, strict=True)
        return cls([{variable.choices.index(op): 1.0} for variable, op in variables])
