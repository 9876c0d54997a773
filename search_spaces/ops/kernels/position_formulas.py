"""What is made of sums over the channels at each position: few operations, forward and backward.

The plain formulas are beside them; they serve tracers and gradients of gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from search_spaces.ops.kernels import reference_statistics as statistics
from search_spaces.ops.kernels.autograd import differentiable, is_traced

Sums = Sequence[Tensor | None]


def apply_formulas(names: tuple[str, ...], n: int, sums: Sums) -> tuple[Tensor, ...]:
    """Return statistics of n values each, in the shape of the sums.

    A standard deviation that may be the rounding of a true 0 is taken for 0.

    Args:
        names: of `mean`, `standard_deviation`, `third_moment` and `p_norm`.
        n: number of values that were summed.
        sums: of the first to the fourth power; None where no statistic needs it.
    """
    if not names:
        return ()
    function = _plain_formulas if is_traced(_any(sums)) else _Formulas.apply
    found: tuple[Tensor, ...] = function(names, n, *sums)
    return found


def norm_of_affine(a: Tensor, b: Tensor, n: int, linear: Tensor, squares: Tensor) -> Tensor:
    """Return sqrt(sum (a y + b)^2) over n values y, and 0 where it may be the rounding of a true 0.

    Args:
        a: of each position, (H, W).
        b: of each position, (H, W).
        n: number of values that were summed.
        linear: sum y, (B, 1, H, W).
        squares: sum y^2, (B, 1, H, W).
    """
    function = _plain_norm_of_affine if is_traced(linear) else _NormOfAffine.apply
    found: Tensor = function(a, b, n, linear, squares)
    return found


def _plain_formulas(names: tuple[str, ...], n: int, *sums: Tensor | None) -> tuple[Tensor, ...]:
    first, second, third, fourth = sums
    found = {}
    if first is not None:
        found["mean"] = mean = first / n
    if first is not None and second is not None:
        deviations = _above(second - n * mean * mean, 8, second)
        found["standard_deviation"] = statistics.root(deviations, 2) / max(n - 1, 1) ** 0.5
    if first is not None and second is not None and third is not None:
        found["third_moment"] = third / n + mean * (2 * mean * mean - (3 / n) * second)
    if fourth is not None:
        found["p_norm"] = statistics.root(fourth, 4)
    return tuple(found[name] for name in names)


class _Formulas(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, names: tuple[str, ...], n: int, *sums: Any) -> tuple[Tensor, ...]:
        first, second, third, fourth = sums
        found: dict[str, Tensor] = {}
        mean = deviations = None
        if first is not None:
            found["mean"] = mean = first / n
            mean_squares = mean * mean
        if "standard_deviation" in names:
            deviations = torch.add(second, mean_squares, alpha=-n)
            # A comparison with what is no number is false, and keeps it.
            deviations.masked_fill_(deviations <= _rounding(8, second), 0)
            found["standard_deviation"] = (deviations / max(n - 1, 1)).sqrt_()
        if "third_moment" in names:
            slope = torch.add(2 * mean_squares, second, alpha=-3 / n)
            found["third_moment"] = (third / n).addcmul_(mean, slope)
        if "p_norm" in names:
            found["p_norm"] = fourth.clamp(min=0).sqrt_().sqrt_()
        ctx.names, ctx.n = names, n
        own = (found.get("standard_deviation"), found.get("p_norm"))
        ctx.save_for_backward(*sums, mean, deviations, *own)
        ctx.set_materialize_grads(False)
        return tuple(found[name] for name in names)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        *sums, mean, deviations, deviation, p_norm = ctx.saved_tensors
        names, n = ctx.names, ctx.n
        if torch.is_grad_enabled():  # somebody wants gradients of these gradients
            plain = differentiable(
                lambda *sums: _plain_formulas(names, n, *sums),
                sums,
                ctx.needs_input_grad[2:],
                gradients,
            )
            return None, None, *plain
        _, second, _, fourth = sums
        given = dict(zip(names, gradients, strict=True))
        in_mean, in_second = given.get("mean"), None
        in_third = in_fourth = None
        if (gradient := given.get("standard_deviation")) is not None:
            # Where the root is 0, so is the slope, whatever it is divided by.
            in_second = _slope_of_root(gradient * deviation, 2, deviations)
            in_mean = _add_product(in_mean, mean, in_second, -2 * n)
        if (gradient := given.get("third_moment")) is not None:
            in_third = gradient / n
            in_second = _add_product(in_second, mean, gradient, -3 / n)
            slope = torch.addcmul((-3 / n) * second, mean, mean, value=6)
            in_mean = _add_product(in_mean, gradient, slope, 1)
        if (gradient := given.get("p_norm")) is not None:
            in_fourth = _slope_of_root(gradient * p_norm, 4, fourth)
        in_first = None if in_mean is None else in_mean / n
        return None, None, in_first, in_second, in_third, in_fourth


def _plain_norm_of_affine(a: Tensor, b: Tensor, n: int, linear: Tensor, squares: Tensor) -> Tensor:
    quadratic, constant = a.square() * squares, n * b.square()
    total = quadratic + 2 * a * b * linear + constant
    return statistics.root(_above(total, 4, quadratic + constant), 2)


class _NormOfAffine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, n: int, linear: Tensor, squares: Tensor) -> Tensor:
        total = squares * (a * a)
        total += n * (b * b)
        rounding = _rounding(4, total)
        total.addcmul_(linear, 2 * a * b)
        total.masked_fill_(total <= rounding, 0)
        norm = total.sqrt()
        ctx.n = n
        ctx.save_for_backward(a, b, linear, squares, total, norm)
        return norm

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        a, b, linear, squares, total, norm = ctx.saved_tensors
        n = ctx.n
        if torch.is_grad_enabled():
            needed = ctx.needs_input_grad
            in_a, in_b, in_linear, in_squares = differentiable(
                lambda a, b, *sums: (_plain_norm_of_affine(a, b, n, *sums),),
                [a, b, linear, squares],
                [needed[0], needed[1], needed[3], needed[4]],
                [gradient],
            )
            return in_a, in_b, None, in_linear, in_squares
        in_total = _slope_of_root(gradient * norm, 2, total)
        along_linear = 2 * (in_total * linear).sum((0, 1))
        in_a = 2 * a * (in_total * squares).sum((0, 1)) + b * along_linear
        in_b = 2 * n * b * in_total.sum((0, 1)) + a * along_linear
        return in_a, in_b, None, in_total * (2 * a * b), in_total * (a * a)


def _any(sums: Sums) -> Tensor:
    return next(tensor for tensor in sums if tensor is not None)


def _rounding(count: int, terms: Tensor) -> Tensor:
    """Return what the rounding of a sum of `terms` may leave of a true 0: `count` eps."""
    return (count * torch.finfo(terms.dtype).eps) * terms.detach().clamp(min=0)


def _above(total: Tensor, count: int, terms: Tensor) -> Tensor:
    return torch.where(total > _rounding(count, terms), total, 0.0)


def _slope_of_root(product: Tensor, p: int, total: Tensor) -> Tensor:
    """Return product / (p * total), for a product with total^(1/p), which is 0 where that is."""
    return product.div_(p * total.clamp(min=torch.finfo(total.dtype).tiny))


def _add_product(to: Tensor | None, x: Tensor, y: Tensor, value: float) -> Tensor:
    """Return to + value * x * y."""
    return value * (x * y) if to is None else torch.addcmul(to, x, y, value=value)
