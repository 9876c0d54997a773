"""The board of a run. It imports nothing heavy: its process begins in the time of Ray alone."""

from __future__ import annotations

from typing import Any

Note = tuple[str, str, tuple[Any, ...]]
"""Label of a search, what it tells of, and that."""


class Board:
    """Where searches on any node pin what they see, and the driver takes it off."""

    def __init__(self) -> None:
        self.notes: list[Note] = []

    def pin(self, note: Note) -> None:
        """Add a note."""
        self.notes.append(note)

    def take(self) -> list[Note]:
        """Return what was pinned since the last call."""
        taken, self.notes = self.notes, []
        return taken
