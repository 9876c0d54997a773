"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainables.persistence.store import StorageError


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file whole or not at all: under another name first, which is then its own.

    Args:
        path: of the file, which may exist.
        write: writes it to the path that it is given.

    Raises:
        StorageError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)
