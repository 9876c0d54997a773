"""Formulas of the statistics that follow from sums over the channels at each position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from search_spaces.ops.kernels.reference_statistics import root


def apply_formulas(
    names: tuple[str, ...], n: int, sums: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Compute statistics of n values each, in the shape of the sums.

    A standard deviation that may be the rounding error of a true 0 is set to 0.

    Args:
        names: Any of `mean`, `standard_deviation`, `third_moment` and `p_norm`.
        n: Number of values that were summed.
        sums: Sums of the first to the fourth power; None where no statistic needs it.
    """
    first, second, third, fourth = sums
    found = {}
    if first is not None:
        found["mean"] = mean = first / n
    if first is not None and second is not None and "standard_deviation" in names:
        deviations = _above(second - n * mean * mean, 8, second)
        found["standard_deviation"] = root(deviations / max(n - 1, 1), 2)
    if first is not None and second is not None and third is not None:
        found["third_moment"] = third / n + mean * (2 * mean * mean - (3 / n) * second)
    if fourth is not None:
        found["p_norm"] = root(fourth, 4)
    return tuple(found[name] for name in names)


def norm_of_affine(a: Tensor, b: Tensor, n: int, linear: Tensor, squares: Tensor) -> Tensor:
    """Return sqrt(sum (a y + b)^2) over n values y; 0 where it may be the rounding of a true 0.

    Args:
        a: Factor of each position, (H, W).
        b: Offset of each position, (H, W).
        n: Number of values that were summed.
        linear: Sum of y, (B, 1, H, W).
        squares: Sum of y^2, (B, 1, H, W).
    """
    quadratic, constant = a.square() * squares, n * b.square()
    total = quadratic + 2 * a * b * linear + constant
    return root(_above(total, 4, quadratic + constant), 2)


def _above(total: Tensor, count: int, terms: Tensor) -> Tensor:
    """Return `total`, and 0 where it may be the rounding error of 0: `count` eps of `terms`."""
    rounding = (count * torch.finfo(terms.dtype).eps) * terms.detach().clamp(min=0)
    # A comparison with NaN is false, so NaN is kept.
    return torch.where(total <= rounding, 0.0, total)
