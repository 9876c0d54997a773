"""Operations, backbones and so on that a user's script registers, sent to other processes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from importlib import import_module
from typing import Any

from search_spaces.catalogue import CATALOGUES

Entering = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function that enters something where it is unpickled, and its arguments."""

FURTHER: list[Callable[[], list[Entering]]] = []
"""Functions that return what else is to be entered: metrics, which are in no catalogue."""


class Registered:
    """Pickled entries of catalogues, which enter them in the process that unpickles this object.

    Args:
        content: Pickles, each of an `Entering`.
    """

    own: tuple[bytes, ...] = ()
    """Content of the object made last in this process, whose catalogues have these entries."""

    def __init__(self, content: tuple[bytes, ...] = ()) -> None:
        self.content = content

    def __bool__(self) -> bool:
        return bool(self.content)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.content,)


def _restore(content: tuple[bytes, ...]) -> Registered:
    if content != Registered.own:
        for one in content:  # made by the driver of this run, whose code runs here anyway
            enter, arguments = pickle.loads(one)  # noqa: S301
            enter(*arguments)
    return Registered(content)


def entries_from_outside() -> list[tuple[str, Entering]]:
    """Return the module of each entry that no file of its catalogue declares, and its entering.

    Operation files of a space are not among them: their text travels with the space.
    """
    return [
        (entered.module, (_enter, (catalogue.defined_in, catalogue.what, name, entered)))
        for catalogue in CATALOGUES
        for name, entered in catalogue.from_outside()
        if not entered.module.startswith("sase_user_operations_")
    ]


def _enter(module: str, what: str, name: str, entered: Any) -> None:
    import_module(module)
    catalogue = next(c for c in CATALOGUES if c.what == what and c.defined_in == module)
    catalogue.restore(name, entered)
