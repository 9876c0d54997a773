"""Declarations in Python files, read from their source without running them."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

Trees = Mapping[str, ast.Module]
"""Mapping from the dotted name of a module to its syntax tree."""

Fields = dict[str, Any]


@dataclass(frozen=True)
class Declaration:
    """A catalogue entry as the source declares it.

    Attributes:
        name: Name of the entry.
        module: Dotted name of the module that enters it.
        fields: Its literal values by name, such as summary and source.
    """

    name: str
    module: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Declarations:
    """The declarations of some files.

    Attributes:
        entries: Declarations by name, in the order of the files and of their lines.
        computed: Modules with declarations that only running them resolves (e.g. in a loop).
    """

    entries: Mapping[str, Declaration]
    computed: tuple[str, ...]


class Form(ABC):
    """Base class of the ways in which a file declares an entry."""

    @abstractmethod
    def mentions(self, text: str) -> bool:
        """Return False if a file with this text cannot declare anything."""

    @abstractmethod
    def read(self, trees: Trees) -> Iterator[tuple[str, Fields | None]]:
        """Yield (module, fields) for each declaration, None for fields that are computed."""


@dataclass(frozen=True)
class Decorated(Form):
    """A function or class at the top level of a file, under a decorator.

    The arguments may be literals and constants of the file. The summary is the first line of the
    docstring, unless it is an argument. A list `variants` declares one entry for each of its
    members: see `fill_in`.

    Attributes:
        decorator: Name of the decorator.
        parameters: Names of its positional parameters.
        where: Values that a declaration must have to count.
    """

    decorator: str
    parameters: tuple[str, ...] = ("name",)
    where: tuple[tuple[str, str], ...] = ()

    def mentions(self, text: str) -> bool:
        """Return whether the text contains the decorator's name."""
        return self.decorator in text

    def read(self, trees: Trees) -> Iterator[tuple[str, Fields | None]]:
        """Read the decorators; any other use of the decorator's name counts as computed."""
        for module, tree in trees.items():
            uses = sum(self._is_use(node) for node in ast.walk(tree))
            constants = _constants(tree)
            for node in tree.body:
                if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                    continue
                for call in node.decorator_list:
                    if not isinstance(call, ast.Call) or not self._is_use(call.func):
                        continue
                    fields = self._arguments(call, constants)
                    if fields is None:
                        continue
                    uses -= 1
                    fields.setdefault("summary", first_line(ast.get_docstring(node)))
                    if all(fields.get(key) == value for key, value in self.where):
                        yield from ((module, row) for row in _variants(fields))
            if uses:
                yield module, None

    def _is_use(self, node: ast.AST) -> bool:
        if isinstance(node, ast.alias):
            return node.name == self.decorator and node.asname is not None
        return getattr(node, "id", getattr(node, "attr", None)) == self.decorator

    def _arguments(self, call: ast.Call, constants: Fields) -> Fields | None:
        """Evaluate the arguments; those that are computed are left out, except the key's."""
        pairs = [*zip(self.parameters, call.args, strict=False)]
        pairs += [(keyword.arg or "**", keyword.value) for keyword in call.keywords]
        fields = _literals(pairs, constants)
        needed = {*self.parameters, *(key for key, _ in pairs if key in ("variants", "**"))}
        return fields if needed <= fields.keys() else None


@dataclass(frozen=True)
class Subclassed(Form):
    """A class whose body assigns `name` and `summary`; further fields may be inherited."""

    def mentions(self, text: str) -> bool:
        """Return whether the text contains a class."""
        return "class " in text

    def read(self, trees: Trees) -> Iterator[tuple[str, Fields | None]]:
        """Read the classes."""
        classes: dict[str, tuple[list[str], Fields]] = {}
        declared = []
        for module, tree in trees.items():
            constants = _constants(tree)
            for node in ast.walk(tree):
                if not isinstance(node, ast.ClassDef):
                    continue
                assigned = list(_assignments(node.body))
                fields = _literals(assigned, constants)
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                classes[node.name] = (bases, fields)
                if {"name", "summary"} <= {name for name, _ in assigned}:
                    readable = node in tree.body and isinstance(fields.get("name"), str)
                    declared.append((module, node.name if readable else None))

        def inherited(name: str) -> Fields:
            bases, fields = classes.get(name, ([], {}))
            above: Fields = {}
            for base in reversed(bases):
                above |= inherited(base)
            return above | fields

        for module, class_name in declared:
            yield module, class_name and inherited(class_name)  # type: ignore[misc]


@cache
def read_declarations(form: Form, package: str, folders: tuple[str, ...]) -> Declarations:
    """Read what the files of a package declare.

    Args:
        form: Way in which they declare it.
        package: Dotted name of the package, or of a module that is one file.
        folders: Its folders, searched recursively; or the one file.
    """
    trees: dict[str, ast.Module] = {}
    for folder in map(Path, folders):
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if form.mentions(text):
                below = () if path == folder else path.relative_to(folder).with_suffix("").parts
                trees[".".join((package, *below)).removesuffix(".__init__")] = ast.parse(text)
    entries: dict[str, Declaration] = {}
    computed = []
    for module, fields in form.read(trees):
        if fields is None:
            computed.append(module)
        else:
            entries[fields["name"]] = Declaration(fields["name"], module, fields)
    return Declarations(entries, tuple(dict.fromkeys(computed)))


def fill_in(template: str, variant: Mapping[str, object]) -> str:
    """Fill in the text of a variant: ``"resnet{depth}"`` with ``{"depth": 20}`` is resnet20."""
    return template.format(**variant) if variant else template


def first_line(docstring: str | None) -> str:
    """Return the first line of a docstring, its summary; an empty text if there is none."""
    return next(iter((docstring or "").strip().splitlines()), "")


def _variants(fields: Fields) -> Iterator[Fields]:
    for variant in fields.get("variants", ({},)):
        yield {
            key: fill_in(value, variant) if isinstance(value, str) else value
            for key, value in fields.items()
        }


def _constants(tree: ast.Module) -> Fields:
    return _literals(_assignments(tree.body), {})


def _assignments(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.expr):
                yield target.id, value


def _literals(pairs: Iterable[tuple[str, ast.expr]], constants: Fields) -> Fields:
    found: Fields = {}
    for name, node in pairs:
        try:
            found[name] = _literal(node, constants)
        except (ValueError, KeyError):
            continue
    return found


def _literal(node: ast.expr, constants: Fields) -> Any:
    if isinstance(node, ast.Name):
        return constants[node.id]
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_literal(element, constants) for element in node.elts)
    return ast.literal_eval(node)
