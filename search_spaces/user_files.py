"""Reading of untrusted text and YAML files: without running code, and with limits on size.

YAML is read by the core schema of YAML 1.2: ``12:30``, ``yes`` and ``2026-01-31`` are texts,
``010`` is 10 and ``1e-3`` is a number, unlike in YAML 1.1, which PyYAML follows. Only thousands may
still be set apart: ``60_000`` is a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import UserError, shorten

LONGEST = 100_000
"""Maximum number of characters of a file; PyYAML takes about a second for as many."""

MOST_VALUES = 100_000
"""Maximum number of values of a YAML file with every alias (``*name``) expanded."""

_TAG = "tag:yaml.org,2002:"
_CORE = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    (
        "int",
        r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+|[-+]?[1-9][0-9]{0,2}(_[0-9]{3})+",
        "-+0123456789",
    ),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("merge", r"<<", "<"),
)
"""Tag, pattern and first characters of texts without quotes that are not strings (chapter 10.3)."""


class _Loader(yaml.SafeLoader):
    """Loader without the resolvers of YAML 1.1."""


_Loader.yaml_implicit_resolvers = {}


class _Dumper(yaml.SafeDumper):
    """Dumper that puts strings in quotes which YAML 1.1 or 1.2 would read as something else."""


for _name, _pattern, _first in _CORE:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"{_TAG}{_name}", re.compile(rf"(?:{_pattern})\Z"), list(_first)
        )
_Loader.add_constructor(
    f"{_TAG}int",
    lambda loader, node: int(node.value, 0 if node.value[:2] in ("0o", "0x") else 10),
)


def read_text(path: Path, what: str) -> str:
    """Read a text file.

    Raises:
        UserError: The file cannot be read, is not UTF-8 text, or is longer than `LONGEST`.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST + 1)
    except OSError as error:
        raise UserError(f"{what} {path}: {error.strerror or error}") from None
    except ValueError:  # from the decoder, or for a path with a null character
        raise UserError(f"{what} {str(path)!r} is not a text file") from None
    _check_length(text, f"{what} {path}")
    return text


def parse_yaml(text: str, where: str) -> Any:
    """Read YAML into plain values.

    Args:
        text: YAML text.
        where: Description of its origin, with which the error begins.

    Raises:
        UserError: The text is not YAML, or has more than `MOST_VALUES` values with its aliases
            expanded.
    """
    _check_length(text, where)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        # Counted before construction, which expands what `<<: *name` merges.
        nodes = list(islice(_nodes(root), MOST_VALUES + 1))
        for node in nodes:
            if isinstance(node, yaml.ScalarNode):
                node.value.encode()  # raises for a lone surrogate, which could not be written again
        small = len(nodes) <= MOST_VALUES
        twice = next(filter(None, map(_given_twice, nodes)), None) if small else None
        content = loader.construct_document(root) if small and root and not twice else None
    # PyYAML also raises ValueError (of an integer that is too long), KeyError, and others.
    except Exception as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise UserError(f"{where} is not valid YAML{line}") from None
    if twice:
        raise UserError(f"{where} {twice}")
    if not small:
        raise UserError(
            f"{where} is too large: with its aliases written out, it has more than "
            f"{MOST_VALUES:,} values"
        )
    return content


def read_yaml_mapping(path: Path, what: str) -> dict[str, object]:
    """Read a YAML file that holds a mapping.

    Raises:
        UserError: The file cannot be read, is not YAML, or holds something else.
    """
    content = parse_yaml(read_text(path, what), f"{what} {path}")
    if not isinstance(content, dict):
        got = "an empty file" if content is None else f"a {type(content).__name__}"
        raise UserError(f"{what} {path}: expected keys and values, got {got}")
    return content


def dump_yaml(content: Any) -> str:
    """Return plain values as YAML that `parse_yaml` reads back, and any reader of YAML 1.1."""
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def _given_twice(node: yaml.Node) -> str | None:
    """Return what is wrong with a mapping that has a key twice: only one value would count."""
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if not isinstance(key, yaml.ScalarNode):
            continue
        line, name = key.start_mark.line + 1, (key.tag, key.value)
        if name in lines:
            where = f"lines {lines[name]} and {line}" if line != lines[name] else f"line {line}"
            return f"has the key {shorten(key.value)!r} twice ({where})"
        lines[name] = line
    return None


def _check_length(text: str, where: str) -> None:
    if len(text) > LONGEST:
        raise UserError(f"{where} is too long: it has more than {LONGEST:,} characters")


def _nodes(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """Walk a tree, which may be infinite; an aliased node is yielded at each of its places."""
    pending = [] if root is None else [root]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, yaml.SequenceNode):
            pending += node.value
        elif isinstance(node, yaml.MappingNode):
            pending += chain.from_iterable(node.value)
