"""Search spaces: which operations each edge may take. Plain Python; no torch, no Ray."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from search_spaces.errors import UserError, explain_validation_error, unknown_name
from search_spaces.genotype import EDGES, Genotype
from search_spaces.registered import Registered
from search_spaces.user_files import read_text, read_yaml_mapping
from search_spaces.user_paths import expand, user_path


@dataclass(frozen=True)
class Variable:
    """One decision of the space: an edge, in one stage or in all, and its possible operations.

    Its name is that of the edge, or ``stage2.channel_squeeze`` where each stage has its own block.
    """

    name: str
    edge: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class OperationFile:
    """A user's Python file that registers operations.

    The text travels with the space, so that a worker on another machine can load it too.
    """

    path: str
    text: str


@dataclass(frozen=True)
class SearchSpace:
    """Sets of operations, the edges that pick from them, and whether stages share a genotype.

    Args:
        name: Name of the space on the command line.
        sets: Mapping from each set's name to the names of its operations.
        edges: Mapping from each of the six edges to the name of the set that it picks from.
        stages: Number of stages; 1 if the whole network shares one genotype.
        source: Paper or other origin of the space.
        operation_files: Files that are loaded before the operations are built.
        registered: What a script has registered, for processes in which it has not run.

    Raises:
        UserError: An edge is missing, or picks from a set that is empty or missing, or there is
            no stage.
    """

    name: str
    sets: Mapping[str, tuple[str, ...]]
    edges: Mapping[str, str]
    stages: int = 1
    source: str = ""
    operation_files: tuple[OperationFile, ...] = field(default=(), repr=False)
    registered: Registered = field(default_factory=Registered, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.stages < 1:
            raise UserError(f"space {self.name!r}: stages is 1 or more, not {self.stages}")
        for edge in self.edges:
            if edge not in EDGES:
                raise unknown_name("edge", edge, EDGES)
        for edge in EDGES:
            if edge not in self.edges:
                raise UserError(f"space {self.name!r}: edge {edge!r} has no set")
            if self.edges[edge] not in self.sets:
                raise unknown_name(f"set of edge {edge!r}", self.edges[edge], self.sets)
        for name, ops in self.sets.items():
            if not ops or len(set(ops)) != len(ops):
                raise UserError(f"space {self.name!r}: set {name!r} is empty or names one twice")
            for op in ops:
                if not op.isidentifier():
                    raise UserError(f"space {self.name!r}: {op!r} in set {name!r} is not a name")

    @classmethod
    def load(cls, name_or_path: str | Path | SearchSpace) -> SearchSpace:
        """Load a space by the name of a bundled definition or by the path of a YAML file.

        Raises:
            UserError: There is no such space, or the file does not describe one.
        """
        if isinstance(name_or_path, SearchSpace):
            return name_or_path
        text = expand(name_or_path)
        if text in space_names():
            return _load_file(_definitions() / f"{text}.yaml")
        if text.endswith((".yaml", ".yml")):
            return _load_file(Path(text))
        raise unknown_name("search space", text, [*space_names(), "the path of a YAML file"])

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The decisions, in the order of `Genotype.ops`."""
        return tuple(
            Variable(
                name=edge if self.stages == 1 else f"stage{stage}.{edge}",
                edge=edge,
                choices=tuple(self.sets[self.edges[edge]]),
            )
            for stage in range(self.stages)
            for edge in EDGES
        )

    @property
    def size(self) -> int:
        """Number of genotypes."""
        return prod(len(v.choices) for v in self.variables)

    def parse(self, text: str | Genotype) -> Genotype:
        """Read a genotype and check it against this space.

        Raises:
            UserError: The text is not a genotype, or not one of this space (see `validate`).
        """
        genotype = Genotype.parse(text)
        self.validate(genotype)
        return genotype

    def validate(self, genotype: Genotype) -> None:
        """Check that a genotype belongs to this space.

        Raises:
            UserError: It does not; the message names the set, the allowed names and the nearest.
        """
        if genotype.stages != self.stages:
            raise UserError(
                f"space {self.name!r} has {self.stages} stage(s), genotype {genotype} has "
                f"{genotype.stages}"
            )
        for variable, op in zip(self.variables, genotype.ops, strict=True):
            if op not in variable.choices:
                set_name = self.edges[variable.edge]
                what = f"operation of set {set_name!r} (edge {variable.name})"
                raise unknown_name(what, op, variable.choices)

    def __contains__(self, genotype: object) -> bool:
        try:
            self.validate(Genotype.parse(genotype))  # type: ignore[arg-type]
        except UserError:
            return False
        return True

    def __bool__(self) -> bool:
        """Return True: `len` would overflow, as the size of a per-stage space exceeds its limit."""
        return True

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Genotype]:
        """Enumerate all genotypes; the last edge varies fastest."""
        for ops in product(*(v.choices for v in self.variables)):
            yield Genotype(ops)

    def __getitem__(self, index: int) -> Genotype:
        """Return the genotype at position `index` of the enumeration.

        Raises:
            IndexError: The index is out of range.
        """
        if not -self.size <= index < self.size:
            raise IndexError(f"genotype {index} of {self.size}")
        index %= self.size
        ops: list[str] = []
        for variable in reversed(self.variables):
            index, digit = divmod(index, len(variable.choices))
            ops.append(variable.choices[digit])
        return Genotype(tuple(reversed(ops)))

    def index(self, genotype: Genotype) -> int:
        """Return the position of a genotype in the enumeration: the inverse of indexing."""
        self.validate(genotype)
        index = 0
        for variable, op in zip(self.variables, genotype.ops, strict=True):
            index = index * len(variable.choices) + variable.choices.index(op)
        return index

    def sample(self, rng: random.Random) -> Genotype:
        """Draw one genotype uniformly."""
        return Genotype(tuple(rng.choice(v.choices) for v in self.variables))

    def sample_distinct(self, count: int, rng: random.Random) -> list[Genotype]:
        """Draw `count` different genotypes uniformly.

        Raises:
            UserError: The space has fewer genotypes.
        """
        if not 0 <= count <= self.size:
            raise UserError(f"space {self.name!r} has {self.size} genotypes, {count} asked for")
        # Floyd's algorithm: `rng.sample` does not accept a range as long as a per-stage space.
        chosen: set[int] = set()
        for last in range(self.size - count, self.size):
            index = rng.randrange(last + 1)
            chosen.add(last if index in chosen else index)
        indices = sorted(chosen)
        rng.shuffle(indices)
        return [self[i] for i in indices]

    def neighbours(self, genotype: Genotype) -> list[Genotype]:
        """Return all genotypes that differ in exactly one decision."""
        self.validate(genotype)
        return [
            Genotype((*genotype.ops[:i], op, *genotype.ops[i + 1 :]))
            for i, variable in enumerate(self.variables)
            for op in variable.choices
            if op != genotype.ops[i]
        ]

    def mutate(self, genotype: Genotype, rng: random.Random, changes: int = 1) -> Genotype:
        """Change exactly `changes` decisions, each to another operation drawn uniformly.

        Raises:
            UserError: Fewer than `changes` decisions have an alternative.
        """
        self.validate(genotype)
        free = [i for i, v in enumerate(self.variables) if len(v.choices) > 1]
        if not 0 <= changes <= len(free):
            raise UserError(f"cannot change {changes} decisions: {len(free)} have an alternative")
        ops = list(genotype.ops)
        for i in rng.sample(free, changes):
            ops[i] = rng.choice([op for op in self.variables[i].choices if op != ops[i]])
        return Genotype(tuple(ops))

    def crossover(self, first: Genotype, second: Genotype, rng: random.Random) -> Genotype:
        """Take each decision from one of two parents, drawn evenly (uniform crossover)."""
        self.validate(first)
        self.validate(second)
        pairs = zip(first.ops, second.ops, strict=True)
        return Genotype(tuple(rng.choice(pair) for pair in pairs))

    def to_config(self, genotype: Genotype) -> dict[str, str]:
        """Return a genotype as the config of a Tune trial: variable names to operations."""
        self.validate(genotype)
        names = (v.name for v in self.variables)
        return dict(zip(names, genotype.ops, strict=True))

    def from_config(self, config: Mapping[str, object]) -> Genotype:
        """Read a genotype from a trial's config; other keys are ignored.

        Raises:
            UserError: A variable is missing or its value is not allowed.
        """
        missing = [v.name for v in self.variables if v.name not in config]
        if missing:
            raise UserError(f"config lacks {', '.join(missing)}")
        genotype = Genotype(tuple(str(config[v.name]) for v in self.variables))
        self.validate(genotype)
        return genotype


def describe_space(space: SearchSpace) -> dict[str, Any]:
    """Return a space as plain values that identify it, with digests of its operation files."""
    files = [hashlib.sha256(file.text.encode()).hexdigest() for file in space.operation_files]
    return {
        "name": space.name,
        "sets": {name: list(ops) for name, ops in space.sets.items()},
        "edges": dict(space.edges),
        "stages": space.stages,
        "source": space.source,
        "operations": files,
    }


class _SpaceFile(BaseModel):
    """Schema of a space's YAML file."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"\A\w[\w-]*\z", max_length=100)
    source: str = ""
    scope: Literal["network", "stage"] = "network"
    stages: int | None = Field(default=None, ge=1, le=100, strict=True)
    operations: list[str] = Field(default_factory=list)
    sets: dict[str, list[str]]
    edges: dict[str, str]

    @model_validator(mode="after")
    def _stages_follow_scope(self) -> _SpaceFile:
        if (self.scope == "stage") != (self.stages is not None):
            raise ValueError("scope 'stage' needs 'stages: N', scope 'network' takes no 'stages'")
        return self


def _load_file(path: Path) -> SearchSpace:
    try:
        spec = _SpaceFile.model_validate(read_yaml_mapping(path, "space file"))
    except ValidationError as error:
        raise explain_validation_error(error, _SpaceFile, f"space file {path}") from None
    return SearchSpace(
        name=spec.name,
        sets={name: tuple(ops) for name, ops in spec.sets.items()},
        edges=spec.edges,
        stages=spec.stages or 1,
        source=spec.source,
        operation_files=tuple(_read_operation_files(spec.operations, path.parent)),
    )


def _read_operation_files(names: Iterable[str], folder: Path) -> Iterator[OperationFile]:
    for name in names:
        path = folder / user_path(name)
        yield OperationFile(str(path), read_text(path, "operations file"))


def _definitions() -> Path:
    return Path(str(resources.files("search_spaces"))) / "definitions"


@cache
def space_names() -> tuple[str, ...]:
    """Return the names of the bundled definitions."""
    return tuple(sorted(path.stem for path in _definitions().glob("*.yaml")))
