"""Checkpoints: written atomically, verified by a digest, read without running code."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainables.persistence.store import Store, write_whole

_FILE = "state.pt"
KEPT = 2
"""Number of checkpoints kept per training: if one is corrupt, there is one before it."""

logger = logging.getLogger(__name__)


def save_state(state: dict[str, Any], folder: str | Path) -> None:
    """Write a state of tensors and plain values into a folder, atomically."""
    write_whole(Path(folder) / _FILE, lambda partial: torch.save(state, partial))


def load_state(folder: str | Path) -> dict[str, Any]:
    """Read a state that `save_state` wrote; tensors are put on the CPU."""
    return torch.load(Path(folder) / _FILE, map_location="cpu", weights_only=True)


class Checkpoints:
    """The last checkpoints of one training, in a store.

    Each file's name holds the epoch and a digest of its content, so that a file that was
    truncated or changed is recognised.

    Args:
        store: Store of this training only.
        log: Called with a message about each checkpoint that is skipped.
    """

    def __init__(self, store: Store, log: Callable[[str], None] = logger.warning) -> None:
        self.store = store
        self.log = log

    def save(self, state: dict[str, Any], epoch: int) -> None:
        """Save a state of tensors and plain values; remove all but the `KEPT` latest checkpoints.

        Raises:
            StorageError: The checkpoint cannot be written.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        before = self.store.names()
        self.store.write(f"{epoch:06d}-{_digest(content)}.pt", content)
        for name in before[: 1 - KEPT]:
            self.store.remove(name)

    def latest(self) -> dict[str, Any] | None:
        """Return the latest state that is intact, tensors on the CPU; None if there is none."""
        for name in reversed(self.store.names()):
            content = self.store.read(name) or b""
            stem, _, digest = name.removesuffix(".pt").partition("-")
            if _digest(content) == digest:
                try:
                    state: dict[str, Any] = torch.load(
                        io.BytesIO(content), map_location="cpu", weights_only=True
                    )
                except (RuntimeError, pickle.UnpicklingError, ValueError, EOFError):
                    pass
                else:
                    return state
            self.log(
                f"the checkpoint of epoch {stem.lstrip('0') or 0} in {self.store.place} is "
                f"damaged: the one before it is used"
            )
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
