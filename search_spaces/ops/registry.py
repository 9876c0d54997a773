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

from search_spaces.catalogue import Catalogue
from search_spaces.declarations import Decorated, first_line
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


OPERATIONS: dict[str, Catalogue[Operation]] = {
    kind: Catalogue(
        f"operation of kind {kind!r}",
        "search_spaces.ops",
        Decorated("register_op", ("kind", "name"), where=(("kind", kind),)),
    )
    for kind in KINDS
}
"""The catalogue of each kind."""


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
        summary = first_line(factory.__doc__)
        OPERATIONS[kind].enter(name, Operation(kind, name, factory, summary, source), factory)
        return factory

    return enter


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
    """Return the operations of one kind, or of all."""
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
        UserError: no operation of that kind has this name.
    """
    factory = OPERATIONS[kind].find(name).factory
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
            if name not in OPERATIONS[kind]:
                what = f"operation of kind {kind!r} in space {space.name!r}"
                raise unknown_name(what, name, OPERATIONS[kind])


@cache
def _run_operation_file(file: OperationFile) -> None:
    # Run from its text, not by import: the path may not exist on the machine of a worker.
    # Named by the path alone, so that a file that was edited may register its operations anew.
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
