"""Checkpoints: written whole or not at all, read without running code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

_FILE = "state.pt"


def save_state(state: dict[str, Any], folder: str | Path) -> None:
    """Write a state of tensors and plain values into a folder.

    It is written beside its place and renamed, so that a process that dies leaves no half file.
    """
    target = Path(folder) / _FILE
    partial = target.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, target)


def load_state(folder: str | Path) -> dict[str, Any]:
    """Read what `save_state` wrote; tensors come to the CPU."""
    return torch.load(Path(folder) / _FILE, map_location="cpu", weights_only=True)
