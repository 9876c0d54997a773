"""Reading of untrusted text and YAML files: without running code, and with limits on size."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import UserError

LONGEST = 100_000
"""Maximum number of characters of a file; PyYAML takes about a second for as many."""

MOST_VALUES = 100_000
"""Maximum number of values of a YAML file with every alias (``*name``) expanded."""


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
        # Counted before construction, which expands what `<<: *name` merges.
        nodes = list(islice(_nodes(yaml.compose(text, Loader=yaml.SafeLoader)), MOST_VALUES + 1))
        for node in nodes:
            if isinstance(node, yaml.ScalarNode):
                node.value.encode()  # raises for a lone surrogate, which could not be written again
        small = len(nodes) <= MOST_VALUES
        content = yaml.safe_load(text) if small else None
    # PyYAML also raises ValueError (a date of 2020-13-45), KeyError, AttributeError and others.
    except Exception as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise UserError(f"{where} is not valid YAML{line}") from None
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
