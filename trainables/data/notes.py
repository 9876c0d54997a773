"""Wording of the sentences on how images were read."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, which has an s in the plural."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
