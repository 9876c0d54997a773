"""Parameters of a plant that students begin with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search_spaces.block import SASE
from search_spaces.genotype import Genotype
from search_spaces.super_block import SuperSASE
from trainables.planted.draw import PlantedBlock


@dataclass(frozen=True)
class Given:
    """Function that puts a plant's parameters into the blocks of a student or of a supernet.

    An operation that is the plant's on its edge begins with the plant's parameters, and so does
    each block's join; all others keep theirs, and so do those of another shape (in a block that
    sees a part of the channels).

    Attributes:
        genotype: Genotype of the plant.
        stages: Stage of each block of the host.
        state: Parameters and buffers by block, edge (or `join`), and name.
    """

    genotype: Genotype
    stages: tuple[int, ...]
    state: Mapping[str, Tensor]

    @classmethod
    def of(cls, teacher: nn.Module, genotype: Genotype) -> Given:
        """Take the parameters of a plant's network, the result of `build_teacher`."""
        stages = tuple(m.stage for m in teacher.modules() if isinstance(m, PlantedBlock))
        places = cls(genotype, stages, {})._places(teacher)
        state = {
            f"{place}.{name}": value.cpu().clone()
            for place, part in places
            for name, value in part.state_dict().items()
        }
        return cls(genotype, stages, state)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        """Put them into a network."""
        for place, part in self._places(model):
            for name, value in part.state_dict().items():  # these share memory with the parameters
                known = self.state.get(f"{place}.{name}")
                if known is not None and known.shape == value.shape:
                    value.copy_(known)

    def _places(self, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        """Yield the joins of all blocks, and the operations that are the plant's on their edge."""
        blocks = [module for module in model.modules() if isinstance(module, SASE | SuperSASE)]
        for number, block in enumerate(blocks):
            yield f"{number}.join", block.join
            for edge, op in self.genotype.stage(self.stages[number]).edges().items():
                operation = _operation(block, edge, op)
                if operation is not None:
                    yield f"{number}.{edge}", operation


def _operation(block: SASE | SuperSASE, edge: str, op: str) -> nn.Module | None:
    """Return a block's module of an operation on an edge, if it has it there."""
    if isinstance(block, SASE):
        return block.edges[edge] if block.genotype.edges()[edge] == op else None
    operations = dict(zip(block.choices[edge], block.edges[edge].children(), strict=True))
    return operations.get(op)
