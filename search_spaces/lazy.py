"""Lazy package attributes: imported on first use, so that nobody waits for the others."""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_attributes(package: str, file: str) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package from what it imports under ``if TYPE_CHECKING:``.

    Args:
        package: Name of the package, its `__name__`.
        file: Path of the `__init__.py` of the package.
    """
    places: dict[str, str] = {}
    for node in ast.parse(Path(file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            for statement in node.body:
                if isinstance(statement, ast.ImportFrom) and statement.module:
                    places |= dict.fromkeys((a.name for a in statement.names), statement.module)

    def get(name: str) -> Any:
        if name in places:
            return getattr(import_module(places[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
