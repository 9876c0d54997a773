"""Paths as users write them: `~` and `$VAR` are expanded as a shell does, wherever one is given."""

from __future__ import annotations

import getpass
import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from search_spaces.errors import UserError, shorten

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)


def expand(path: str | os.PathLike[str]) -> str:
    """Return a path, or the URI of a storage, with variables and a leading `~` expanded.

    A shell does so only for a word of its own that begins with `~`: neither within
    ``--output=~/x`` nor in a file.

    Raises:
        UserError: A variable is not set, or there is no such user, or no home; unless a file is
            really called so.
    """
    given = os.fspath(path)
    text = _VARIABLE.sub(lambda match: _value(given, match), given)
    if text.startswith("~"):
        home = os.path.expanduser(text)
        if home == text and not os.path.lexists(text):
            user = text[1:].partition("/")[0]
            why = f"there is no user {user!r}" if user else "this user has no home: set HOME"
            raise UserError(f"path {shorten(given)!r}: {why}")
        text = home
    return text


def stand_in_for_account() -> None:
    """Set HOME, and USER, in the environment of a process whose user has neither home nor name.

    So are those of containers that run under any user id: Ray and torch fail there at import.
    """
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = "/nonexistent"  # Debian's home of users without one
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        os.environ["USER"] = f"uid-{os.getuid()}"


def _value(path: str, match: re.Match[str]) -> str:
    name = match[1] or match[2]
    value = os.environ.get(name)
    if value:
        return value
    if os.path.lexists(path):
        return match[0]
    raise UserError(f"path {shorten(path)!r}: the environment variable {name} is not set")


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path of the user, see `expand`."""
    return Path(expand(path))


def expand_in(value: Any) -> Any:
    """Return plain values, such as options, in which texts that begin like a path are expanded."""
    if isinstance(value, str):
        return expand(value) if value.startswith(("~", "$")) else value
    if isinstance(value, dict):
        return {key: expand_in(one) for key, one in value.items()}
    return [expand_in(one) for one in value] if isinstance(value, list) else value


UserPath = Annotated[str, AfterValidator(expand)]
"""A path or URI in a configuration or among options, expanded when it is read."""
