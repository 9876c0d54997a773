"""Storage that a run must not lose: a folder, or a bucket that pyarrow can reach."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyarrow import fs

from search_spaces.errors import UserError
from search_spaces.user_paths import expand

OBJECT_STORES = {"s3", "gcs", "abfs"}
"""Schemes of storages in which names with slashes need no folders."""


class StorageError(UserError):
    """Error of a storage that cannot be read or written, in one sentence."""


class Store:
    """Named pieces of bytes under one place; each is written atomically.

    A piece is written under another name first and then renamed; object stores write atomically
    by themselves. A store can be passed to other processes.

    Args:
        place: Folder, or a URI such as ``s3://bucket/folder`` or ``hdfs://...``.

    Raises:
        StorageError: The URI is of no known kind.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = expand(place)
        if "://" not in self.place:
            self.place = str(Path(self.place).resolve())
        try:
            self._files, self._root = fs.FileSystem.from_uri(self.place)
        except (OSError, ValueError) as error:
            raise StorageError(f"storage {self.place!r} cannot be used: {error}") from None
        self._has_folders = self._files.type_name not in OBJECT_STORES

    def at(self, *parts: str) -> Store:
        """Return the store of a folder below this one."""
        return Store("/".join((self.place.rstrip("/"), *parts)))

    def write(self, name: str, content: bytes) -> None:
        """Write a piece, replacing an earlier one of the same name.

        Raises:
            StorageError: The piece cannot be written; an earlier one is still there.
        """
        path = f"{self._root}/{name}"
        try:
            if self._has_folders:
                self._files.create_dir(path.rpartition("/")[0], recursive=True)
            if self._files.type_name != "local":
                with self._files.open_output_stream(path) as stream:
                    stream.write(content)
                return
        except OSError as error:
            raise self._failure("written", name, error) from None
        write_whole(Path(path), lambda partial: partial.write_bytes(content))

    def read(self, name: str) -> bytes | None:
        """Return a piece, or None where there is none.

        Raises:
            StorageError: The piece exists but cannot be read.
        """
        try:
            with self._files.open_input_stream(f"{self._root}/{name}") as stream:
                content: bytes = stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failure("read", name, error) from None
        return content

    def names(self) -> list[str]:
        """Return the names of the pieces directly under this place, sorted."""
        selector = fs.FileSelector(self._root, allow_not_found=True)
        try:
            found = self._files.get_file_info(selector)
        except OSError as error:
            raise self._failure("listed", "", error) from None
        return sorted(
            info.base_name
            for info in found
            if info.type == fs.FileType.File and not info.base_name.endswith(".partial")
        )

    def remove(self, name: str = "") -> None:
        """Remove a piece, or a folder with all its content, if it exists."""
        path = f"{self._root}/{name}" if name else self._root
        with suppress(OSError):  # what cannot be removed does no harm
            if self._files.get_file_info(path).type == fs.FileType.Directory:
                self._files.delete_dir(path)
            else:
                self._files.delete_file(path)

    def _failure(self, what: str, name: str, error: OSError) -> StorageError:
        where = f"{self.place}/{name}" if name else self.place
        return StorageError(f"{where} cannot be {what}: {error}")


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file atomically: under another name first, then renamed.

    Several processes may write the same file at once.

    Args:
        path: Path of the file, which may exist.
        write: Function that writes the content to the path that it is given.

    Raises:
        StorageError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
