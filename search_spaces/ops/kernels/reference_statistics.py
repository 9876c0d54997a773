"""Statistics over some axes of a map, with finite values and gradients everywhere.

All take x and the axes `dim` to reduce, and keep those axes with size one. N is the number of
values reduced. Fourth powers are taken after division by the largest magnitude, so that they
cannot overflow, and no root is taken of zero, where its gradient is infinite.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

Axes = tuple[int, ...]


def mean(x: Tensor, dim: Axes) -> Tensor:
    """Return the mean."""
    return x.mean(dim, keepdim=True)


def maximum(x: Tensor, dim: Axes) -> Tensor:
    """Return the maximum; tied maxima share the gradient equally."""
    return x.amax(dim, keepdim=True)


def p_norm(x: Tensor, dim: Axes, p: int) -> Tensor:
    """Return (sum |x|^p)^(1/p) for p = 2 or 4; at x = 0 both value and gradient are 0."""
    if p == 2:  # squares of float32 overflow only beyond 1e19, and need no scaling
        return root((x * x).sum(dim, keepdim=True), 2)
    peak = x.detach().abs().amax(dim, keepdim=True)
    squares = (x / torch.where(peak > 0, peak, 1.0)).square()
    return peak * root((squares * squares).sum(dim, keepdim=True), 4)


def root(total: Tensor, p: int) -> Tensor:
    """Return total^(1/p) for p = 2 or 4, and 0 with gradient 0 where total is 0."""
    zero = total <= 0  # false for NaN, which is kept
    square_root = torch.where(zero, 1.0, total).sqrt()
    return torch.where(zero, 0.0, square_root if p == 2 else square_root.sqrt())


def root_mean_square(x: Tensor, dim: Axes) -> Tensor:
    """Return (mean x^2)^(1/2)."""
    return root(mean(x * x, dim), 2)


def standard_deviation(x: Tensor, dim: Axes) -> Tensor:
    """Return the unbiased standard deviation, (sum (x - mean)^2 / (N - 1))^(1/2); 0 for N = 1."""
    deviation = x - mean(x, dim)
    squares = (deviation * deviation).sum(dim, keepdim=True)
    return root(squares / _degrees_of_freedom(count(x, dim)), 2)


def third_moment(x: Tensor, dim: Axes) -> Tensor:
    """Return the third central moment, mean((x - mean)^3)."""
    return mean((x - mean(x, dim)).pow(3), dim)


def covariance(x: Tensor) -> Tensor:
    """Return the unbiased covariance of D variables in N observations; 0 for N = 1.

    Shapes: (B, D, N) to (B, D, D).
    """
    centred = x - mean(x, (2,))
    return centred @ centred.transpose(1, 2) / _degrees_of_freedom(x.shape[2])


def _degrees_of_freedom(n: int) -> int:
    """Return n - 1, and 1 for n = 1, without a comparison, which `torch.fx` cannot trace."""
    return n - 1 + 1 // n


def count(x: Tensor, dim: Axes) -> int:
    """Return N, the number of values reduced."""
    return prod([x.shape[axis] for axis in dim])  # a list: torch.compile cannot trace a generator
