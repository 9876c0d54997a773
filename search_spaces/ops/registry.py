"""The catalogue of operations, and the decorator that enters one."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from search_spaces.errors import UserError, unknown_name
from search_spaces.genotype import EDGE_KINDS, KINDS
from search_spaces.space import OperationFile, SearchSpace

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Operation:
    """A catalogue row: what an edge of this kind may be."""

    kind: str
    name: str
    factory: Callable[..., Any]
    summary: str
    source: str


_CATALOGUE: dict[tuple[str, str], Operation] = {}


def register_op(kind: str, name: str, *, source: str = "") -> Callable[[T], T]:
    """Enter a function or a module class into the catalogue, under `kind` and `name`.

    A *function* is an operation without parameters: tensor to tensor, with the shapes of its
    kind (see the kind's file). A *class* is an `nn.Module` built as
    ``cls(channels, size, affine=..., device=..., dtype=...)``: `channels` of the feature map,
    `size` the (H, W) it is built for, `affine` whether its batch norms have parameters of their
    own (False inside a supernet). The first line of the docstring is its summary.

    Raises:
        UserError: no such kind, or the name is taken by something else.
    """
    if kind not in KINDS:
        raise unknown_name("kind of operation", kind, KINDS)
    if not name.isidentifier():
        raise UserError(f"{name!r} cannot name an operation: use letters, digits and '_'")

    def enter(factory: T) -> T:
        known = _CATALOGUE.get((kind, name))
        if known and _origin(known.factory) != _origin(factory):
            raise UserError(f"operation {name!r} of kind {kind!r} is already registered")
        summary = (factory.__doc__ or "").strip().splitlines()
        _CATALOGUE[kind, name] = Operation(
            kind, name, factory, summary[0] if summary else "", source
        )
        return factory

    return enter


def _origin(factory: Callable[..., Any]) -> tuple[str, str]:
    return factory.__module__, factory.__qualname__


class Stateless(nn.Module):
    """A module around an operation that is a plain function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        return self.function(x)

    def extra_repr(self) -> str:
        """Name the function in the module's print-out."""
        return self.function.__name__


def operations(kind: str | None = None) -> list[Operation]:
    """Return the catalogue, or the part of one kind, in order of entry."""
    return [op for op in _CATALOGUE.values() if kind in (None, op.kind)]


def build_op(
    kind: str,
    name: str,
    channels: int,
    size: tuple[int, int],
    *,
    affine: bool = True,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Build one operation as a module.

    Raises:
        UserError: no operation of that kind has this name.
    """
    if (kind, name) not in _CATALOGUE:
        allowed = [op.name for op in operations(kind)]
        raise unknown_name(f"operation of kind {kind!r}", name, allowed)
    factory = _CATALOGUE[kind, name].factory
    if isinstance(factory, type):
        return factory(channels, size, affine=affine, device=device, dtype=dtype)
    return Stateless(factory)


def load_operations(space: SearchSpace) -> None:
    """Run the space's own operation files and check that every operation it names exists.

    Raises:
        UserError: a file fails, or a name is in no catalogue.
    """
    for file in space.operation_files:
        _run_operation_file(file)
    for edge, kind in EDGE_KINDS.items():
        for name in space.sets[space.edges[edge]]:
            if (kind, name) not in _CATALOGUE:
                allowed = [op.name for op in operations(kind)]
                what = f"operation of kind {kind!r} in space {space.name!r}"
                raise unknown_name(what, name, allowed)


@cache
def _run_operation_file(file: OperationFile) -> None:
    # Run from its text, not by import: the path may not exist on the machine of a worker.
    # Named by the path alone, so that a file that was edited may register its operations anew.
    digest = hashlib.sha256(file.path.encode()).hexdigest()
    module = ModuleType(f"sase_user_operations_{digest[:16]}")
    module.__file__ = file.path
    sys.modules[module.__name__] = module
    try:
        exec(compile(file.text, file.path, "exec"), module.__dict__)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"operations file {file.path}: {type(error).__name__}: {error}") from error
