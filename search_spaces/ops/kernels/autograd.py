"""Shared by the fused operations: parts of a batch, tracing, constants, gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

CHUNK = 2**18
"""Values that are worked on at a time on a CPU, to keep the peak memory down."""


def chunks(x: Tensor) -> Iterator[slice]:
    """Cut the batch into parts, of which the intermediate results are small."""
    size = max(len(x), 1)
    if x.device.type == "cpu" and x.numel():
        size = max(1, CHUNK * len(x) // x.numel())
    for start in range(0, max(len(x), 1), size):
        yield slice(start, start + size)


def is_traced(x: Tensor) -> bool:
    """Return whether plain formulas are wanted: by a compiler or a transform of functions."""
    # As `torch.autograd.Function.apply` asks.
    transformed: bool = torch._C._are_functorch_transforms_active()
    return transformed or torch.compiler.is_compiling() or x.device.type == "meta"


def constant(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keep the tensors that a function makes from its hashable arguments.

    They are made as ordinary tensors even in inference mode, whose own could not be used in
    training, and are not kept while a compiler traces with stand-ins.
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
    """Return gradients that have gradients themselves, by way of the plain formula.

    Args:
        plain: from the inputs to the outputs.
        inputs: of the function.
        needed: which of them need a gradient.
        gradients: in the outputs; None where there is none.
    """
    # Views, for one input may depend on another, which is not what a partial derivative is of.
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
