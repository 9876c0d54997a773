"""State dicts as training scripts save them: within a checkpoint, or under a wrapper's prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = ("state_dict", "model", "model_state_dict", "model_state", "network", "net")
"""Names under which a checkpoint keeps the state dict of its network, in this order."""

PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and DDP, and `torch.compile`, put before all names."""


def state_dict_in(content: Any) -> Any:
    """Return the state dict in what a file contains, without prefixes; else the content itself."""
    while isinstance(content, Mapping):
        name = next((n for n in NAMES if isinstance(content.get(n), Mapping)), None)
        if name is None:
            break
        content = content[name]
    while isinstance(content, Mapping) and content:
        keys = [str(key) for key in content]
        prefix = next((p for p in PREFIXES if all(key.startswith(p) for key in keys)), None)
        if prefix is None:
            break
        content = {str(key).removeprefix(prefix): value for key, value in content.items()}
    return content
