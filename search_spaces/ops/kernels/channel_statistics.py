"""Statistics of a map's channels and averages of the map, with one backward pass for all of them.

The formulas are those of `reference_statistics`; here they share common terms (the mean, the
deviations from it), keep only the map itself for the backward pass, and pass over the whole map as
rarely as possible.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.ops.kernels import reference_statistics
from search_spaces.ops.kernels.autograd import chunks, differentiable
from search_spaces.ops.kernels.mode import is_traced
from search_spaces.ops.kernels.reference_statistics import Axes, count

Names = frozenset[str]
SPACE: Axes = (2, 3)
PLAIN: dict[str, Callable[[Tensor, Axes], Tensor]] = {
    "mean": reference_statistics.mean,
    "maximum": reference_statistics.maximum,
    "standard_deviation": reference_statistics.standard_deviation,
    "third_moment": reference_statistics.third_moment,
    "root_mean_square": reference_statistics.root_mean_square,
    "p_norm": lambda x, dim: reference_statistics.p_norm(x, dim, 4),
}
"""Plain formulas of the statistics of each channel, (B, C, 1, 1)."""

GRID_SIDE = 8
GROUP = 4


def average_grid(x: Tensor) -> Tensor:
    """Return x averaged to 8 x 8 positions, (B, C, 8, 8)."""
    return F.adaptive_avg_pool2d(x, GRID_SIDE)


def average_groups(x: Tensor) -> Tensor:
    """Return x averaged to D = max(1, C // 4) channels, (B, D, H, W)."""
    groups = F.adaptive_avg_pool1d(x.flatten(2).mT, groups_of(x.shape[1])).mT
    return groups.unflatten(2, x.shape[2:])


def groups_of(channels: int) -> int:
    """Return D, the number of groups into which the channels are averaged."""
    return max(1, channels // GROUP)


AVERAGES: dict[str, Callable[[Tensor], Tensor]] = {"grid": average_grid, "groups": average_groups}
"""Plain formulas of the averages of a map."""


def measure_channels(x: Tensor, wanted: Names) -> dict[str, Tensor]:
    """Compute statistics of each channel of x, and averages of x.

    Args:
        x: Map (B, C, H, W), float32 or float64.
        wanted: Names of the results, keys of `PLAIN` and of `AVERAGES`.
    """
    names = tuple(name for name in (*PLAIN, *AVERAGES) if name in wanted)
    if is_traced(x):
        return dict(zip(names, _plain(x, names), strict=True))
    even = tuple(name for name in names if _is_even(name, x))
    uneven = tuple(name for name in names if name not in even)
    found = dict(zip(uneven, _plain(x, uneven), strict=True))
    return found | dict(zip(even, _Measure.apply(x, even), strict=True)) if even else found


def _plain(x: Tensor, names: tuple[str, ...]) -> tuple[Tensor, ...]:
    return tuple(PLAIN[name](x, SPACE) if name in PLAIN else AVERAGES[name](x) for name in names)


def _is_even(name: str, x: Tensor) -> bool:
    """Return whether the parts that are averaged have equal sizes."""
    if name == "grid":
        return x.shape[2] % GRID_SIDE == 0 and x.shape[3] % GRID_SIDE == 0
    return name != "groups" or x.shape[1] % groups_of(x.shape[1]) == 0


def _rows_of_cells(x: Tensor) -> Tensor:
    """View x (B, C, H, W) as (B, C, 8, H / 8, W)."""
    return x.unflatten(2, (GRID_SIDE, -1))


def _grouped(x: Tensor) -> Tensor:
    """View x (B, C, H, W) as (B, D, C / D, H, W)."""
    return x.unflatten(1, (groups_of(x.shape[1]), -1))


class _Measure(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, names: tuple[str, ...]) -> tuple[Tensor, ...]:
        parts = [_sums(x[part], names) for part in chunks(x)]
        sums = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        found = sums | _from_sums(sums, names, count(x, SPACE))
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
        if torch.is_grad_enabled():  # double backward was requested
            return *differentiable(
                lambda x: _plain(x, tuple(given)), [x], [True], [*given.values()]
            ), None
        if given.keys() <= {"mean"}:
            return (given["mean"] / count(x, SPACE)).expand_as(x), None
        found = dict(zip(ctx.found, saved, strict=True))
        terms = _terms(found, given, count(x, SPACE))
        in_x = torch.empty_like(x)
        for part in chunks(x):
            _write_gradient(x[part], {n: term[part] for n, term in terms.items()}, in_x[part])
        return in_x, None


def _sums(x: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Compute the statistics that take a pass over the map."""
    found = {}
    if not AVERAGES.keys() >= set(names):
        found["mean"] = x.mean(SPACE, keepdim=True)
    if "maximum" in names or "p_norm" in names:
        found["maximum"] = x.amax(SPACE, keepdim=True)
    if "standard_deviation" in names or "third_moment" in names:
        deviation = x + -found["mean"]  # faster than a difference: `benchmarks/NOTES.md`
        power = deviation * deviation
        found["squares"] = power.sum(SPACE, keepdim=True)
        if "third_moment" in names:
            found["third_moment"] = power.mul_(deviation).mean(SPACE, keepdim=True)
    elif "root_mean_square" in names:
        found["mean_square"] = (x * x).mean(SPACE, keepdim=True)
    if "p_norm" in names:
        found["peak"] = torch.maximum(found["maximum"], -x.amin(SPACE, keepdim=True))
        fourth = (x * (1 / _or_one(found["peak"]))).square_().square_()
        found["fourth"] = fourth.sum(SPACE, keepdim=True)
    if "grid" in names:
        rows = _rows_of_cells(x).sum(3).unflatten(3, (GRID_SIDE, -1))
        found["grid"] = rows.sum(4) * (GRID_SIDE**2 / (x.shape[2] * x.shape[3]))
    if "groups" in names:
        groups = _grouped(x)
        found["groups"] = groups.sum(2) / groups.shape[2]
    return found


def _from_sums(sums: dict[str, Tensor], names: tuple[str, ...], n: int) -> dict[str, Tensor]:
    """Compute the other statistics from the sums; n is the number of positions."""
    found = {}
    if "standard_deviation" in names:
        found["standard_deviation"] = (sums["squares"] / max(n - 1, 1)).sqrt_()
    if "root_mean_square" in names:
        if "squares" in sums:
            mean_square = sums["squares"] / n + sums["mean"].square()
        else:
            mean_square = sums["mean_square"]
        found["root_mean_square"] = mean_square.sqrt()
    if "p_norm" in names:
        found["p_norm"] = sums["peak"] * sums["fourth"].sqrt().sqrt_()
    return found


def _terms(found: dict[str, Tensor], given: dict[str, Tensor], n: int) -> dict[str, Tensor]:
    """Return the terms of the gradient with respect to x, (B, C, 1, 1) except those of averages.

    The gradient is c0 + c1 d + c2 d^2, d = x - mean. To this are added `in_maximum` where x is
    `maximum`, `in_p_norm` times the cube of x / p_norm, and the gradients of averages to the values
    that they average.
    """
    terms = {name: given[name] for name in AVERAGES if name in given}

    def add(name: str, term: Tensor) -> None:
        terms[name] = terms[name] + term if name in terms else term

    if "mean" in found:
        terms["minus_mean"] = -found["mean"]
    if "root_mean_square" in given:  # its derivative is linear in x, which is d + mean
        slope = given["root_mean_square"] * _inverse(found["root_mean_square"]) / n
        add("c1", slope)
        add("c0", slope * found["mean"])
    if "standard_deviation" in given:
        deviation = found["standard_deviation"]
        add("c1", given["standard_deviation"] * _inverse(deviation) / max(n - 1, 1))
    if "third_moment" in given:
        slope = 3 * given["third_moment"] / n
        add("c2", slope)
        add("c0", slope * found["squares"] / -n)
    if "mean" in given:
        add("c0", given["mean"] / n)
    if "maximum" in given:
        terms |= {"maximum": found["maximum"], "in_maximum": given["maximum"]}
    if "p_norm" in given:
        terms |= {"inverse_p_norm": 1 / _or_one(found["p_norm"]), "in_p_norm": given["p_norm"]}
    return terms


def _write_gradient(x: Tensor, terms: dict[str, Tensor], out: Tensor) -> None:
    """Write the gradient with respect to x from its `_terms`, with as few passes as possible."""
    begun = True
    if "c2" in terms:
        deviation = x + terms["minus_mean"]
        torch.mul(deviation, terms["c2"], out=out)
        if "c1" in terms:
            out.add_(terms["c1"])
        out.mul_(deviation)
    elif "c1" in terms:
        torch.add(x, terms["minus_mean"], out=out).mul_(terms["c1"])
    else:
        begun = False
    if "maximum" in terms:
        # Tied maxima share the gradient equally.
        largest = torch.empty_like(x) if begun else out
        torch.eq(x, terms["maximum"], out=largest)
        share = terms["in_maximum"] / largest.sum(SPACE, keepdim=True)
        if begun:
            out.addcmul_(largest, share)
        else:
            out.mul_(share)
            begun = True
    if not begun:
        out.zero_()
    if "c0" in terms:
        out.add_(terms["c0"])
    if "in_p_norm" in terms:
        share = x * terms["inverse_p_norm"]
        out.addcmul_((share * share).mul_(share), terms["in_p_norm"])
    if "grid" in terms:
        rows = _rows_of_cells(out)
        share = terms["grid"] * (GRID_SIDE**2 / (out.shape[2] * out.shape[3]))
        spread = share.unsqueeze(4).expand(*share.shape, out.shape[3] // GRID_SIDE).flatten(3)
        rows.add_(spread.unsqueeze(3))
    if "groups" in terms:
        groups = _grouped(out)
        groups.add_((terms["groups"] / groups.shape[2]).unsqueeze(2))


def _or_one(x: Tensor) -> Tensor:
    """Return x, and 1 where it is 0 or so small that 1 / x would overflow."""
    return torch.where(x > torch.finfo(x.dtype).tiny, x, 1.0)


def _inverse(x: Tensor) -> Tensor:
    """Return 1 / x, and 0 where x is 0 or nearly 0."""
    return torch.where(x > torch.finfo(x.dtype).tiny, 1 / _or_one(x), 0.0)
