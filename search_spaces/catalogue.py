"""Catalogues: named entries, found through the folder that holds their files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

from search_spaces.declarations import Declarations, Form, read_declarations
from search_spaces.errors import UserError, unknown_name

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class _Entered(Generic[Entry]):
    entry: Entry
    module: str
    qualname: str

    @property
    def origin(self) -> tuple[str, str]:
        return self.module, self.qualname


CATALOGUES: list[Catalogue[Any]] = []
"""All catalogues whose modules have been imported."""


class Catalogue(Generic[Entry]):
    """Entries by name. It holds whatever the files of a folder declare; there is no list to edit.

    Names, and what `table` shows, are read from the source of the files. A file is imported when
    one of its entries is used, so that nobody waits for the libraries of the others.

    Args:
        what: Kind of the entries, as error messages name it.
        package: Dotted name of the folder (or of one file) to look through.
        form: Way in which its files declare an entry.
        also: Further names that a caller accepts, for the error message.
    """

    def __init__(self, what: str, package: str, form: Form, *, also: tuple[str, ...] = ()) -> None:
        self.what = what
        self.package = package
        self._form = form
        self._also = also
        self._entered: dict[str, _Entered[Entry]] = {}
        self.defined_in: str = sys._getframe(1).f_globals["__name__"]
        CATALOGUES.append(self)

    def enter(self, name: str, entry: Entry, declared: Callable[..., Any]) -> None:
        """Add an entry; a declaration calls this when its file is imported.

        Args:
            name: Name of the entry.
            entry: Entry to add.
            declared: Function or class of the declaration. If it is defined again (a module
                is loaded again), it replaces itself.

        Raises:
            UserError: The name is already taken by something else.
        """
        new = _Entered(entry, declared.__module__, declared.__qualname__)
        known, before = self._declared().entries.get(name), self._entered.get(name)
        if (known and known.module != new.module) or (before and before.origin != new.origin):
            raise UserError(f"{self.what} {name!r} is already registered: choose another name")
        self._entered[name] = new

    def from_outside(self) -> list[tuple[str, Any]]:
        """Return the names and entries that no file of the package declares, for `restore`."""
        return [
            (name, entered)
            for name, entered in self._entered.items()
            if not f"{entered.module}.".startswith(f"{self.package}.")
        ]

    def restore(self, name: str, entered: Any) -> None:
        """Enter what `from_outside` returned in another process."""
        self._entered[name] = entered

    def find(self, name: str) -> Entry:
        """Return an entry.

        Raises:
            UserError: There is no entry of this name; the message gives the nearest one.
        """
        if name not in self:
            raise unknown_name(self.what, name, [*self, *self._also])
        if name not in self._entered:
            module = self._declared().entries[name].module
            import_module(module)
            if name not in self._entered:
                raise UserError(f"{module} declares {self.what} {name!r}, but does not enter it")
        return self._entered[name].entry

    def entries(self) -> list[Entry]:
        """Return all entries, ordered by name."""
        return [self.find(name) for name in self]

    def table(self, *columns: str) -> list[tuple[Any, ...]]:
        """Return one row per entry, ordered by name.

        Args:
            columns: Names of declared values. An entry is imported only if its source does not
                hold one of them as a literal.
        """
        rows = []
        for name in self:
            known = self._declared().entries.get(name)
            fields = known.fields if known and known.fields.keys() >= {*columns} else None
            entry = None if fields else self.find(name)
            rows.append(tuple(fields[c] if fields else getattr(entry, c) for c in columns))
        return rows

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names: first of the folder's files, then of entries added otherwise."""
        declared = self._declared()
        for module in declared.computed:
            import_module(module)
        return iter(dict.fromkeys([*declared.entries, *self._entered]))

    def __contains__(self, name: object) -> bool:
        declared = self._declared().entries
        return name in self._entered or name in declared or name in list(self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _declared(self) -> Declarations:
        """Read the files' source once, and again if the package has gained another folder."""
        folders = getattr(sys.modules.get(self.package), "__path__", None)
        if folders is None:
            spec = find_spec(self.package)
            assert spec is not None
            folders = spec.submodule_search_locations or [str(spec.origin)]
        return read_declarations(self._form, self.package, tuple(folders))
