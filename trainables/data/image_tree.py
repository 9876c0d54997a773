"""Image files below a folder, and an account of what is left out there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image, ImageFile

from search_spaces.errors import UserError
from trainables.data.notes import counted

SYSTEM_NAMES = {
    "__macosx",
    "@eadir",
    "@recycle",
    "#recycle",
    "$recycle.bin",
    "lost+found",
    "system volume information",
}
"""Folders that archives, network storage and file systems add, in lower case."""

SHOWN = 3

_IDENTIFIED_ONLY = {"EPS", "MPEG"}
"""Formats that Pillow opens without decoding them, or only by another program."""


@cache
def suffixes() -> frozenset[str]:
    """Return the endings of the files that Pillow and its installed plugins decode, lower case."""
    Image.init()
    stubs = {
        name
        for name, (factory, _) in Image.OPEN.items()
        if isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)
    }
    decoded = Image.OPEN.keys() - stubs - _IDENTIFIED_ONLY
    return frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in decoded)


def is_system_name(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or belongs to the system."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


class LeftOut:
    """Counts of the files of a tree that are not read, by their reason."""

    def __init__(self) -> None:
        self._system: Counter[str] = Counter()
        self._endings: Counter[str] = Counter()
        self._others: Counter[str] = Counter()

    def system(self, entry: os.DirEntry[str]) -> None:
        """Count a hidden file, or the files below a hidden folder."""
        in_folder = sum(len(files) for _, _, files in os.walk(entry.path))
        self._system[entry.name] += in_folder if entry.is_dir() else 1

    def ending(self, name: str) -> None:
        """Count a file whose ending is not that of an image."""
        self._endings[os.path.splitext(name)[1].lower() or "no ending"] += 1

    def other(self, reason: str) -> None:
        """Count files or links that are left out for another reason, a noun."""
        self._others[reason] += 1

    def add(self, other: LeftOut) -> None:
        """Count what another account has counted."""
        self._system += other._system
        self._endings += other._endings
        self._others += other._others

    def sentence(self) -> str | None:
        """Return one sentence with the counts, or None if everything is read."""
        parts = []
        if system := self._system.total():
            names = _shown([name for name, _ in self._system.most_common()])
            parts.append(f"{counted(system, 'hidden or system file')} ({names})")
        if endings := self._endings.total():
            kinds = [f"{count:,} {ending}" for ending, count in self._endings.most_common()]
            parts.append(f"{counted(endings, 'file')} of other types ({_shown(kinds)})")
        parts += [counted(count, reason) for reason, count in self._others.items()]
        return f"left out: {', '.join(parts)}" if parts else None


def _shown(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def class_folders(part: Path, left_out: LeftOut) -> list[str]:
    """Return the names of the class folders of a part, sorted; none if there is no such part."""
    if not part.is_dir():
        return []
    names = []
    for entry in _entries(part):
        if is_system_name(entry.name):
            left_out.system(entry)
        elif entry.is_dir():
            names.append(entry.name)
        elif _suffix(entry.name) in suffixes():
            left_out.other("stray image")
        else:
            left_out.ending(entry.name)
    return names


def image_files(folder: Path, left_out: LeftOut) -> list[Path]:
    """Return the image files of a folder and of all folders in it or linked there, sorted.

    No folder is read twice, and no link to a folder that contains this one is followed.

    Args:
        folder: Folder of a class.
        left_out: Account of the files that are not returned.

    Raises:
        UserError: A folder cannot be read.
    """
    return sorted(_walk(folder, left_out))


def _walk(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    visited = {_identity(parent) for parent in folder.resolve().parents}
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        if _identity(current) in visited:
            left_out.other("repeated or circular link")
            continue
        visited.add(_identity(current))
        for entry in _entries(current):
            if is_system_name(entry.name):
                left_out.system(entry)
            elif entry.is_dir():
                waiting.append(Path(entry.path))
            elif _suffix(entry.name) not in suffixes():
                left_out.ending(entry.name)
            elif entry.is_file() or entry.is_symlink():  # reading a broken link names it
                yield Path(entry.path)
            else:
                left_out.other("pipe or device")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"folder {folder} cannot be read: {error.strerror}") from None


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
