"""Numerical precision in which statistics are computed."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@torch.fx.wrap  # one node of a symbolic graph, since a symbol has no dtype
def at_least_float32(x: Tensor) -> Tensor:
    """Return x in float32, or unchanged if it is float32 or float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(function: Callable[..., T]) -> Callable[..., T]:
    """Decorate a function or method of one tensor to run in float32 (or float64), also in autocast.

    The tensor is its last argument. The result keeps that precision.
    """

    @wraps(function)
    def in_full_precision(*args: Any) -> T:
        *owner, x = args
        x = at_least_float32(x)
        # Entered only where needed: an exported graph would contain the context as a submodule.
        if isinstance(x, Tensor) and _is_autocast(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return function(*owner, x)
        return function(*owner, x)

    return in_full_precision


def _is_autocast(device: str) -> bool:
    # `is_autocast_available` would break the graph of a compiler.
    return device != "meta" and torch.is_autocast_enabled(device)
