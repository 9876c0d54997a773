"""Helpers of the fused operations: parts of a batch, constants, gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

CHUNK = 2**18
"""Number of values that are processed at a time on a CPU, to limit the peak memory."""


def chunks(x: Tensor) -> Iterator[slice]:
    """Cut the batch into parts whose intermediate results are small."""
    size = max(len(x), 1)
    if x.device.type == "cpu" and x.numel():
        size = max(1, CHUNK * len(x) // x.numel())
    for start in range(0, max(len(x), 1), size):
        yield slice(start, start + size)


def constant(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keep the tensors that a function makes from its hashable arguments.

    They are never freed, since a CUDA graph reads them at their address. They are made as ordinary
    tensors even in inference mode, whose tensors could not be used in training, and are not kept
    while a compiler traces with fake tensors.
    """

    @cache
    def kept(*args: Any) -> Tensor:
        with torch.inference_mode(False):
            return make(*args)

    def made_or_kept(*args: Any) -> Tensor:
        return make(*args) if torch.compiler.is_compiling() else kept(*args)

    return made_or_kept


def differentiable(
    plain: Callable[..., Sequence[Tensor | None]],
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    gradients: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """Return gradients that can be differentiated again, computed with the plain formula.

    Args:
        plain: Plain formula, from the inputs to the outputs.
        inputs: Inputs of the function.
        needed: Whether each input needs a gradient.
        gradients: Gradients with respect to the outputs; None where there is none.
    """
    # Views, since one input may depend on another, which a partial derivative must not follow.
    inputs = [x if x is None else x.view_as(x) for x in inputs]
    pairs = [
        (output, gradient)
        for output, gradient in zip(plain(*inputs), gradients, strict=True)
        if output is not None and gradient is not None and output.requires_grad
    ]
    if not pairs:
        return (None,) * len(needed)
    outputs, given = zip(*pairs, strict=True)
    leaves = [x for x, need in zip(inputs, needed, strict=True) if need and x is not None]
    found = iter(torch.autograd.grad(outputs, leaves, given, create_graph=True, allow_unused=True))
    return tuple(next(found) if need else None for need in needed)
