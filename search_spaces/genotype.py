"""Genotypes: which operation each edge of the attention block uses. Plain Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.errors import UserError, shorten, unknown_name

EDGE_KINDS: Mapping[str, str] = {
    "channel_squeeze": "channel_squeeze",
    "channel_excite": "channel_excite",
    "refine_excite": "channel_excite",
    "refined_squeeze": "spatial_squeeze",
    "spatial_squeeze": "spatial_squeeze",
    "spatial_excite": "spatial_excite",
}
"""Edges of the block, in the order of the text form, with the kind of operation each takes."""

EDGES: tuple[str, ...] = tuple(EDGE_KINDS)
KINDS: tuple[str, ...] = tuple(dict.fromkeys(EDGE_KINDS.values()))

OP_SEPARATOR = "-"
STAGE_SEPARATOR = "+"


@dataclass(frozen=True, order=True)
class Genotype:
    """Six operation names per block; one block for the whole network, or one for each stage.

    The text form joins the six names of `EDGES` by ``-`` and the stages by ``+``:
    ``gap_gmp-fc-affine-pnorm-gap-conv3x3_x2``. It is safe in file names and parses back to an
    equal object. A genotype knows no search space: `SearchSpace.parse` also checks the names.

    Args:
        ops: Operation names, six per stage, in the order of `EDGES`.

    Raises:
        UserError: The number of names is not a positive multiple of six, or a name is empty.
    """

    ops: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ops", tuple(self.ops))
        if not self.ops or len(self.ops) % len(EDGES):
            raise UserError(
                f"a genotype has {len(EDGES)} operations a stage ({', '.join(EDGES)}), "
                f"got {len(self.ops)}: {OP_SEPARATOR.join(self.ops)!r}"
            )
        for op in self.ops:
            if not op.isidentifier():
                raise UserError(f"{op!r} is not an operation name in {self.ops!r}")

    @classmethod
    def parse(cls, text: str | Genotype) -> Genotype:
        """Read the text form. A genotype passes through unchanged.

        Raises:
            UserError: A stage does not have six names, or the argument is not a text.
        """
        if isinstance(text, Genotype):
            return text
        if not isinstance(text, str):
            raise UserError(f"a genotype is a text such as {PUBLISHED}, not {text!r}")
        stages = [stage.split(OP_SEPARATOR) for stage in text.strip().split(STAGE_SEPARATOR)]
        for stage in stages:
            if len(stage) != len(EDGES):
                raise UserError(
                    f"genotype {shorten(text)!r}: expected {len(EDGES)} operations joined by "
                    f"{OP_SEPARATOR!r} ({', '.join(EDGES)}), got {len(stage)}"
                )
        return cls(tuple(op for stage in stages for op in stage))

    @classmethod
    def of(cls, **ops: str) -> Genotype:
        """Build a one-block genotype by edge names: ``Genotype.of(channel_squeeze="gap", …)``.

        Raises:
            UserError: An edge is missing or unknown.
        """
        for edge in ops:
            if edge not in EDGES:
                raise unknown_name("edge", edge, EDGES)
        missing = [edge for edge in EDGES if edge not in ops]
        if missing:
            raise UserError(f"genotype lacks an operation for {', '.join(missing)}")
        return cls(tuple(ops[edge] for edge in EDGES))

    @property
    def stages(self) -> int:
        """Number of separately chosen blocks; 1 when one block is shared by the network."""
        return len(self.ops) // len(EDGES)

    def stage(self, index: int) -> Genotype:
        """Return the one-block genotype of a stage; a shared genotype serves every stage.

        Raises:
            UserError: The genotype has several stages, but none with this index.
        """
        if self.stages == 1:
            return self
        if not 0 <= index < self.stages:
            raise UserError(
                f"genotype {self} is for {self.stages} stages; the network asks for stage {index}"
            )
        return Genotype(self.ops[index * len(EDGES) : (index + 1) * len(EDGES)])

    def edges(self) -> dict[str, str]:
        """Return the edges and their operations of a one-block genotype, in order.

        Raises:
            UserError: The genotype has more than one stage.
        """
        if self.stages != 1:
            raise UserError(f"genotype {self} has {self.stages} stages: ask for one of them")
        return dict(zip(EDGES, self.ops, strict=True))

    def __str__(self) -> str:
        n = len(EDGES)
        stages = [self.ops[i : i + n] for i in range(0, len(self.ops), n)]
        return STAGE_SEPARATOR.join(OP_SEPARATOR.join(stage) for stage in stages)


PUBLISHED = Genotype.parse("gap_gmp-fc-affine-pnorm-gap-conv3x3_x2")
"""The result of the published search (second-order DARTS, CIFAR-10, ResNet-20)."""


Ranking = list[tuple[Genotype, float]]
"""Genotypes with scores, best first. Scores are comparable only within one ranking."""
