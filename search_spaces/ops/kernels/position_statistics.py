"""Statistics over the channels of a feature map and of the same map under gates, all at once.

At each position they are functions of a few sums over the channels, of w_c * x_c^k: with w = 1 for
the map itself and w = m^k for the map m * x. These sums are matrix products of a few such weights
with powers of x, which all maps share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from search_spaces.ops.kernels.autograd import chunks, differentiable
from search_spaces.ops.kernels.channel_statistics import Names
from search_spaces.ops.kernels.mode import is_traced
from search_spaces.ops.kernels.position_formulas import apply_formulas

NEEDS = {
    "mean": (1,),
    "maximum": (),
    "standard_deviation": (1, 2),
    "third_moment": (1, 2, 3),
    "p_norm": (4,),
}
"""Powers of the map whose sums each statistic needs."""

DEGREE = {"mean": 1, "maximum": 1, "standard_deviation": 1, "third_moment": 3, "p_norm": 1}
"""Power of the map with which each statistic grows."""

POWERS = 4
SAFE = (2.0**-20, 2.0**30)
"""Range in which the powers of a value neither vanish nor overflow."""


@dataclass(frozen=True)
class GatedMap:
    """A map whose statistics over the channels are requested.

    Attributes:
        wanted: Names of the statistics, keys of `NEEDS`.
        gate: Gate m (B, C, 1, 1); the map is m * x. None stands for 1.
    """

    wanted: Names
    gate: Tensor | None = None


def measure_positions(x: Tensor, maps: Sequence[GatedMap]) -> list[dict[str, Tensor]]:
    """Compute the statistics (B, 1, H, W) that each map requests.

    The standard deviation and the third moment are computed from sums of powers: where they are
    small compared with the mean, they are only as exact as the mean's precision allows.

    Args:
        x: Map (B, C, H, W), float32 or float64.
        maps: Maps made from x, each with its gate.
    """
    cubed = any(max(NEEDS[name], default=0) > 2 for map_ in maps for name in map_.wanted)
    # Reading a value makes an accelerator wait, and is impossible under a tracer.
    if not cubed or (x.device.type == "cpu" and not is_traced(x)):
        sums = _Sums(x, maps)
        if not cubed or sums.are_safe():
            return sums.statistics()
    scale = _scale(x)
    return [
        {name: value / scale ** DEGREE[name] for name, value in statistics.items()}
        for statistics in _Sums(x * scale, maps).statistics()
    ]


def _scale(x: Tensor) -> Tensor:
    """Return a power of two that scales x to magnitudes near 1."""
    low, high = torch.aminmax(x.detach()) if x.numel() else (x.new_zeros(()), x.new_zeros(()))
    return _power_of_two(torch.maximum(-low, high))


def _power_of_two(peak: Tensor) -> Tensor:
    # A value next to 0 has no finite inverse.
    usable = (peak > torch.finfo(peak.dtype).tiny) & peak.isfinite()
    return torch.where(usable, torch.exp2(-torch.log2(torch.where(usable, peak, 1.0)).ceil()), 1.0)


class _Sums:
    """Sums over the channels, and maxima, that several maps need."""

    def __init__(self, x: Tensor, maps: Sequence[GatedMap]) -> None:
        self.x = x
        self.maps = maps
        self.rows: dict[int, list[Tensor]] = {1: [], 2: [], 3: [], 4: []}
        self.places: list[dict[int, int]] = []
        for map_ in maps:
            self._ask(map_)
        with_maximum = [index for index, map_ in enumerate(maps) if "maximum" in map_.wanted]
        weights = [torch.stack(rows, 1) if rows else None for rows in self.rows.values()]
        gates = [maps[index].gate for index in with_maximum]
        self.found: dict[int, Tensor] = {}
        self.maxima: dict[int, Tensor] = {}
        if not gates and all(weight is None for weight in weights):
            return
        found = _sums(x, *weights, *gates)
        self.maxima = {i: _only(y) for i, y in zip(with_maximum, found[POWERS:], strict=True)}
        sums = enumerate(found[:POWERS], 1)
        self.found = {power: own for power, own in sums if own is not None}

    def _ask(self, map_: GatedMap) -> None:
        needed = {power for name in map_.wanted for power in NEEDS[name]}
        if map_.gate is None:
            weights = [self.x.new_ones((1, 1)).expand(self.x.shape[:2])] * POWERS
        else:
            first = map_.gate.flatten(1)
            square = first * first  # products, since they are faster than powers
            weights = [first, square, square * first, square * square]
        places = {}
        for power in needed:
            places[power] = len(self.rows[power])
            self.rows[power].append(weights[power - 1])
        self.places.append(places)

    def are_safe(self) -> bool:
        """Return whether, by the largest sum, no power of the map has overflowed or vanished."""
        power = 4 if 4 in self.found else 2  # sums of odd powers may be small by cancellation
        sums = self.found[power].detach()
        low, high = SAFE
        return sums.numel() > 0 and low**power < float(sums.amax()) < high**power

    def statistics(self) -> list[dict[str, Tensor]]:
        """Compute the statistics of each map; maps with equal requests share their formulas."""
        statistics: list[dict[str, Tensor]] = [{} for _ in self.maps]
        for wanted in dict.fromkeys(map_.wanted for map_ in self.maps):
            alike = [index for index, map_ in enumerate(self.maps) if map_.wanted == wanted]
            names = tuple(name for name, powers in NEEDS.items() if powers and name in wanted)
            powers = {power for name in names for power in NEEDS[name]}
            sums = [self._rows(alike, power) if power in powers else None for power in self.rows]
            for name, rows in zip(names, apply_formulas(names, self.x.shape[1], sums), strict=True):
                for index, row in zip(alike, rows.split(1, 1), strict=True):
                    statistics[index][name] = row
        for index, largest in self.maxima.items():
            statistics[index]["maximum"] = largest
        return statistics

    def _rows(self, indices: Sequence[int], power: int) -> Tensor:
        """Return the sums of some maps, (B, maps, H, W)."""
        places = [self.places[index][power] for index in indices]
        found = self.found[power]
        if places == list(range(found.shape[1])):
            return found
        return torch.cat([found[:, place : place + 1] for place in places], 1)


def normalised_sums(centred: Tensor, factors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return, for each factor, the sums over the channels of y and of y^2, y = factor * x.

    Args:
        centred: Map x (B, C, H, W) less the mean of each channel: sums of powers of the original
            map would lose the variance of a channel that hardly varies.
        factors: Factors, each (B, C, 1, 1).
    """
    rows = torch.stack([factor.flatten(1) for factor in factors], 1)
    linear, squares, *_ = _sums(centred, rows, rows * rows, None, None)
    return list(zip(_only(linear).split(1, 1), _only(squares).split(1, 1), strict=True))


def _sums(x: Tensor, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    function = _plain_sums if is_traced(x) else _PositionSums.apply
    found: tuple[Tensor | None, ...] = function(x, *others)
    return found


def _plain_sums(x: Tensor, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return sum_c w[r, c] * x[c]^k for k = 1 to 4, and the maxima of x under gates.

    Args:
        x: Map (B, C, H, W).
        others: For each k the weights w (B, R, C), which give (B, R, H, W), or None; after these
            the gates (B, C, 1, 1), each of which gives (B, 1, H, W); None stands for 1.
    """
    flat = x.flatten(2)
    sums = [
        None
        if weight is None
        else (weight.unsqueeze(3) * flat.unsqueeze(1) ** power).sum(2).unflatten(2, x.shape[2:])
        for power, weight in enumerate(others[:POWERS], 1)
    ]
    maxima = [(x if g is None else g * x).amax(1, keepdim=True) for g in others[POWERS:]]
    return *sums, *maxima


class _PositionSums(torch.autograd.Function):
    """Fused `_plain_sums`: powers are computed once, and the backward pass uses Horner's rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *others: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        weights, gates = others[:POWERS], others[POWERS:]
        flat = x.flatten(2)
        batch, _, positions = flat.shape
        sums = [None if w is None else x.new_empty(batch, w.shape[1], positions) for w in weights]
        maxima = [x.new_empty(batch, 1, positions) for _ in gates]
        for part in chunks(x):
            own = flat[part]
            for power, values in _powers(own, weights):
                place = power - 1
                torch.bmm(_only(weights[place])[part], values, out=_only(sums[place])[part])
            for gate, largest in zip(gates, maxima, strict=True):
                gated = own if gate is None else own * gate[part].flatten(2)
                torch.amax(gated, 1, keepdim=True, out=largest[part])
        found = [y if y is None else y.unflatten(2, x.shape[2:]) for y in (*sums, *maxima)]
        ctx.save_for_backward(x, *others, *found[POWERS:])
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        x, *others = ctx.saved_tensors
        others, maxima = others[: len(gradients)], others[len(gradients) :]
        if torch.is_grad_enabled():
            return differentiable(_plain_sums, [x, *others], ctx.needs_input_grad, gradients)
        weights, gates = others[:POWERS], others[POWERS:]
        flat = x.flatten(2)
        given = [None if g is None else g.flatten(2) for g in gradients]
        in_x = torch.empty_like(x).flatten(2)
        in_others: list[list[Tensor]] = [[] for _ in others]
        for part in chunks(x):
            own, here = flat[part], _of(given, part)
            wanted = [
                gradient if needed else None
                for gradient, needed in zip(here[:POWERS], ctx.needs_input_grad[1:], strict=False)
            ]
            for power, values in _powers(own, wanted):
                in_others[power - 1].append(torch.bmm(_only(wanted[power - 1]), values.mT))
            total = _horner(own, _of(weights, part), here[:POWERS], in_x[part])
            for place, (gate, largest) in enumerate(zip(gates, maxima, strict=True), POWERS):
                if (gradient := here[place]) is None:
                    continue
                factor = None if gate is None else gate[part].flatten(2)
                gated = own if factor is None else own * factor
                # Tied maxima share the gradient equally.
                mask = torch.empty_like(own)
                torch.eq(gated, largest[part].flatten(2), out=mask)
                share = gradient / mask.sum(1, keepdim=True)
                if factor is None:
                    total.addcmul_(mask, share)
                else:
                    total.addcmul_(mask.mul_(share), factor)
                    in_others[place].append(mask.mul_(own).sum(2)[:, :, None, None])
        in_all = [torch.cat(own) if own else None for own in in_others]
        return in_x.view_as(x), *in_all


def _powers(flat: Tensor, wanted: Sequence[Tensor | None]) -> Iterator[tuple[int, Tensor]]:
    """Yield the requested powers of a part of the map; each is overwritten by the next."""
    first, second, third, fourth = (tensor is not None for tensor in wanted)
    if first:
        yield 1, flat
    if second or third or fourth:
        square = flat * flat
    if second:
        yield 2, square
    if third:
        yield 3, square * flat
    if fourth:
        yield 4, square.square_()


def _of(tensors: Sequence[Tensor | None], part: slice) -> list[Tensor | None]:
    return [tensor if tensor is None else tensor[part] for tensor in tensors]


def _only(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def _horner(
    flat: Tensor,
    weights: Sequence[Tensor | None],
    gradients: Sequence[Tensor | None],
    out: Tensor,
) -> Tensor:
    """Write sum_k k * x^(k - 1) * (w_k^T g_k) to `out` and return it."""
    begun = False
    for power in range(len(weights), 0, -1):
        weight, gradient = weights[power - 1], gradients[power - 1]
        if begun:
            out.mul_(flat)
        if weight is not None and gradient is not None:
            factor = weight.mT * power
            out = torch.baddbmm(out, factor, gradient, beta=float(begun), out=out)
            begun = True
    return out if begun else out.zero_()
