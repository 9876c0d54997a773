"""The execution mode of blocks and operations: plain torch, or fused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_depth = 0
"""Number of `fused` contexts that are open; a count, so that threads may overlap."""


@contextmanager
def fused() -> Iterator[None]:
    """Evaluate all blocks fused, as a context or a decorator.

    A block is plain torch otherwise: every operation calls its layers, and any tool of torch can
    trace, hook, replace or export them. Fused, its squeezes share statistics, and parts of it are
    functions with a hand-written gradient that read the weights of layers directly. Parameters and
    results are the same, up to rounding. Traced networks are plain in both modes.

    Supernets are always fused; the project's training, evaluation and latencies open this context.
    """
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def is_fused(x: Tensor) -> bool:
    """Return whether an operation on x is evaluated fused."""
    return _depth > 0 and not is_traced(x)


def is_traced(x: Tensor) -> bool:
    """Return whether a compiler or a function transform traces x, which needs plain formulas."""
    # The same check as in `torch.autograd.Function.apply`.
    transformed: bool = torch._C._are_functorch_transforms_active()
    return (
        transformed
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or x.device.type == "meta"
    )
