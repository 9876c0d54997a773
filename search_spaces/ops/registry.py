"""The catalogue of operations and the decorator that adds to it."""

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

from search_spaces.catalogue import Catalogue
from search_spaces.declarations import Decorated, first_line
from search_spaces.errors import UserError, unknown_name
from search_spaces.genotype import EDGE_KINDS, KINDS
from search_spaces.ops.kernels.precision import full_precision
from search_spaces.space import OperationFile, SearchSpace

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Operation:
    """One entry of the catalogue: an operation that an edge of this kind may use."""

    kind: str
    name: str
    factory: Callable[..., Any]
    summary: str
    source: str


OPERATIONS: dict[str, Catalogue[Operation]] = {
    kind: Catalogue(
        f"operation of kind {kind!r}",
        "search_spaces.ops",
        Decorated("register_op", ("kind", "name"), where=(("kind", kind),)),
    )
    for kind in KINDS
}
"""Catalogue of each kind of operation."""


def register_op(kind: str, name: str, *, source: str = "") -> Callable[[T], T]:
    """Add a function or a module class to the catalogue, under `kind` and `name`.

    A *function* is an operation without parameters: tensor to tensor, with the shapes of its
    kind (see the kind's file); it is called with float32 or float64. A *class* is an `nn.Module`
    built as ``cls(channels, size, affine=..., device=..., dtype=...)``: `channels` is the number
    of channels of the feature map, `size` the (H, W) that it is built for, and `affine` whether
    its batch norms have affine parameters (False inside a supernet). It returns float32 also for
    half precision, see `full_precision`. The first line of the docstring is its summary.

    Raises:
        UserError: There is no such kind, or the name is already taken by something else.
    """
    if kind not in KINDS:
        raise unknown_name("kind of operation", kind, KINDS)
    if not name.isidentifier():
        raise UserError(f"{name!r} cannot name an operation: use letters, digits and '_'")

    def enter(factory: T) -> T:
        summary = first_line(factory.__doc__)
        OPERATIONS[kind].enter(name, Operation(kind, name, factory, summary, source), factory)
        return factory

    return enter


class Stateless(nn.Module):
    """Module that wraps an operation that is a plain function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    @full_precision
    def forward(self, x: Tensor) -> Tensor:
        """Apply the function in float32 (or float64), also in autocast."""
        return self.function(x)

    def extra_repr(self) -> str:
        """Return the name of the function, for the printed form of the module."""
        return self.function.__name__


def operations(kind: str | None = None) -> list[Operation]:
    """Return the operations of one kind, or of all kinds."""
    return [op for one in (KINDS if kind is None else (kind,)) for op in OPERATIONS[one].entries()]


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
        UserError: No operation of that kind has this name.
    """
    factory = OPERATIONS[kind].find(name).factory
    if isinstance(factory, type):
        return factory(channels, size, affine=affine, device=device, dtype=dtype)
    return Stateless(factory)


def load_operations(space: SearchSpace) -> None:
    """Run the operation files of the space and check that every operation it names exists.

    Raises:
        UserError: A file fails, or a name is not in the catalogue.
    """
    for file in space.operation_files:
        _run_operation_file(file)
    for edge, kind in EDGE_KINDS.items():
        for name in space.sets[space.edges[edge]]:
            if name not in OPERATIONS[kind]:
                what = f"operation of kind {kind!r} in space {space.name!r}"
                raise unknown_name(what, name, OPERATIONS[kind])


@cache
def _run_operation_file(file: OperationFile) -> None:
    # Run from its text, not imported: the path may not exist on the machine of a worker.
    # Named only by its path, so that a file that was edited may register its operations again.
    digest = hashlib.sha256(file.path.encode()).hexdigest()
    module = ModuleType(f"sase_user_operations_{digest[:16]}")
    module.__file__ = file.path
    sys.modules[module.__name__] = module
    try:
        exec(compile(file.text, file.path, "exec"), module.__dict__)  # noqa: S102 - the user's own
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"operations file {file.path}: {type(error).__name__}: {error}") from error
