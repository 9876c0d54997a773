"""Statistics of the channels of a map, several at once, with one backward pass for all of them.

The formulas are those of `statistics`; here they share what they have in common (the mean, the
deviations from it), keep only the map itself for the backward pass, and touch the whole map as
rarely as can be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from search_spaces.ops import statistics
from search_spaces.ops.fused import chunks, differentiable, is_traced
from search_spaces.ops.statistics import Axes, count

Names = frozenset[str]
SPACE: Axes = (2, 3)
PLAIN: dict[str, Callable[[Tensor, Axes], Tensor]] = {
    "mean": statistics.mean,
    "maximum": statistics.maximum,
    "standard_deviation": statistics.standard_deviation,
    "third_moment": statistics.third_moment,
    "root_mean_square": statistics.root_mean_square,
    "p_norm": lambda x, dim: statistics.p_norm(x, dim, 4),
}


def measure_channels(x: Tensor, wanted: Names) -> dict[str, Tensor]:
    """Return statistics (B, C, 1, 1) of each channel of x.

    Args:
        x: (B, C, H, W), float32 or float64.
        wanted: keys of `PLAIN`.
    """
    names = tuple(name for name in PLAIN if name in wanted)
    found = _plain(x, names) if is_traced(x) else _Measure.apply(x, names)
    return dict(zip(names, found, strict=True))


def _plain(x: Tensor, names: tuple[str, ...]) -> tuple[Tensor, ...]:
    return tuple(PLAIN[name](x, SPACE) for name in names)


class _Measure(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, names: tuple[str, ...]) -> tuple[Tensor, ...]:
        parts = [_statistics(x[part], names) for part in chunks(x)]
        found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        ctx.save_for_backward(x, *found.values())
        ctx.found, ctx.names = tuple(found), names
        ctx.set_materialize_grads(False)
        return tuple(found[name] for name in names)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        given = {n: g for n, g in zip(ctx.names, gradients, strict=True) if g is not None}
        if not given:
            return None, None
        if torch.is_grad_enabled():  # somebody wants gradients of these gradients
            return *differentiable(
                lambda x: _plain(x, tuple(given)), [x], [True], [*given.values()]
            ), None
        if given.keys() <= {"mean"}:
            return (given["mean"] / count(x, SPACE)).expand_as(x), None
        found = dict(zip(ctx.found, saved, strict=True))
        in_x = torch.empty_like(x)
        for part in chunks(x):
            _write_gradient(x[part], _of(found, part), _of(given, part), in_x[part])
        return in_x, None


def _of(tensors: dict[str, Tensor], part: slice) -> dict[str, Tensor]:
    return {name: tensor[part] for name, tensor in tensors.items()}


def _statistics(x: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the statistics asked for, and those that the backward pass needs besides."""
    n = count(x, SPACE)
    found = {"mean": x.mean(SPACE, keepdim=True)}
    if "maximum" in names:
        found["maximum"] = x.amax(SPACE, keepdim=True)
    if "standard_deviation" in names or "third_moment" in names:
        deviation = x - found["mean"]
        power = deviation * deviation
        found["squares"] = power.sum(SPACE, keepdim=True)
        found["standard_deviation"] = (found["squares"] / max(n - 1, 1)).sqrt_()
        if "third_moment" in names:
            found["third_moment"] = power.mul_(deviation).mean(SPACE, keepdim=True)
    if "root_mean_square" in names:
        squares = (
            found["squares"] / n + found["mean"].square()
            if "squares" in found
            else (x * x).mean(SPACE, keepdim=True)
        )
        found["root_mean_square"] = squares.sqrt_()
    if "p_norm" in names:
        largest = found.get("maximum")
        largest = x.amax(SPACE, keepdim=True) if largest is None else largest
        peak = torch.maximum(largest, -x.amin(SPACE, keepdim=True))
        fourth = (x * (1 / _or_one(peak))).square_().square_()
        found["p_norm"] = peak * fourth.sum(SPACE, keepdim=True).pow_(0.25)
    return found


def _write_gradient(
    x: Tensor, found: dict[str, Tensor], given: dict[str, Tensor], out: Tensor
) -> None:
    """Write the gradient in x: c0 + c1 d + c2 d^2, d = x - mean, and what is no polynomial."""
    n = count(x, SPACE)
    mean = found["mean"]
    constant, linear, quadratic = torch.zeros_like(mean), None, None
    if "mean" in given:
        constant = constant + given["mean"] / n
    if "root_mean_square" in given:
        linear = given["root_mean_square"] * _inverse(found["root_mean_square"]) / n
        constant = constant + linear * mean
    if "standard_deviation" in given:
        slope = given["standard_deviation"] * _inverse(found["standard_deviation"]) / max(n - 1, 1)
        linear = slope if linear is None else linear + slope
    if "third_moment" in given:
        quadratic = 3 * given["third_moment"] / n
        constant = constant - quadratic * found["squares"] / n
    polynomial = quadratic is not None or linear is not None
    if quadratic is not None:
        deviation = x - mean
        torch.mul(deviation, quadratic, out=out)
        if linear is not None:
            out.add_(linear)
        out.mul_(deviation).add_(constant)
    elif linear is not None:
        torch.mul(x, linear, out=out).add_(constant - linear * mean)
    if "maximum" in given:
        # Tied maxima share the gradient.
        largest = torch.empty_like(x) if polynomial else out
        torch.eq(x, found["maximum"], out=largest)
        share = given["maximum"] / largest.sum(SPACE, keepdim=True)
        if polynomial:
            out.addcmul_(largest, share)
        else:
            out.mul_(share).add_(constant)
    elif not polynomial:
        out.copy_(constant.expand_as(out))
    if "p_norm" in given:
        share = x * (1 / _or_one(found["p_norm"]))
        out.addcmul_((share * share).mul_(share), given["p_norm"])


def _or_one(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 1.0)


def _inverse(x: Tensor) -> Tensor:
    """Return 1 / x, and 0 where x is 0."""
    return torch.where(x > 0, 1 / _or_one(x), 0.0)
