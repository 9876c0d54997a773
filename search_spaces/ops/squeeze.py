"""Base class of the squeezes, and the feature map whose statistics they share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.ops.kernels import reference_statistics
from search_spaces.ops.kernels.channel_statistics import (
    GRID_SIDE,
    PLAIN,
    SPACE,
    Names,
    measure_channels,
)
from search_spaces.ops.kernels.mode import is_fused, is_traced
from search_spaces.ops.kernels.position_statistics import (
    GatedMap,
    measure_positions,
    normalised_sums,
)
from search_spaces.ops.kernels.precision import full_precision
from search_spaces.ops.kernels.reference_statistics import Axes, count
from search_spaces.ops.operation_module import OperationModule

LAYER_NORM_EPS = 1e-5
CHANNELS: Axes = (1,)


class FeatureMap:
    """A feature map and the statistics that squeezes read, each computed once.

    Squeezes that will read the same map are announced to `expect`; their statistics are then
    computed together at the first call. A map under a gate (`gated`) shares what it can with the
    plain one; to allow this it is read first.

    Args:
        features: Map x (B, C, H, W), float32 or float64.
        gate: Gate m (B, C, 1, 1); the map is m * x. None stands for 1.
        plain: Map of the same features without a gate.
    """

    def __init__(
        self, features: Tensor, gate: Tensor | None = None, plain: FeatureMap | None = None
    ) -> None:
        self.features = features
        self.gate = gate
        # No map refers to itself or to those made from it: a cycle would keep their memory until
        # the garbage collector runs.
        self._plain = plain
        self._space_names: Names = frozenset()
        self._position_names: Names = frozenset()
        self._over_space: dict[str, Tensor] | None = None
        self._over_channels: dict[str, Tensor] | None = None
        self._reads_normalised = False
        self._normalised: tuple[Tensor, Tensor] | None = None

    def gated(self, gate: Tensor) -> FeatureMap:
        """Return the map gate * x."""
        return FeatureMap(self.features, gate, self)

    @property
    def plain(self) -> FeatureMap:
        """The map without its gate."""
        return self._plain or self

    def _both(self) -> list[FeatureMap]:
        return [self] if self._plain is None else [self._plain, self]

    def expect(self, operations: Iterable[nn.Module]) -> None:
        """Announce operations that will read this map."""
        for operation in operations:
            if isinstance(operation, Squeeze):
                self.plain._space_names |= operation.over_space
                self._position_names |= operation.over_channels
                self._reads_normalised |= operation.reads_normalised

    def expect_gated(self, operations: Iterable[nn.Module]) -> None:
        """Announce operations that will read this map under a gate that is not known yet."""
        for operation in operations:
            if isinstance(operation, Squeeze):
                self._space_names |= operation.over_space

    @property
    def tensor(self) -> Tensor:
        """The map itself (B, C, H, W)."""
        return self.features if self.gate is None else self.gate * self.features

    @property
    def over_space(self) -> dict[str, Tensor]:
        """Statistics of the channels and averages of the map *without its gate*."""
        plain = self.plain
        if plain._over_space is None:
            plain._over_space = measure_channels(self.features, plain._space_names)
        return plain._over_space

    @property
    def over_channels(self) -> dict[str, Tensor]:
        """Statistics (B, 1, H, W) of the positions of the map."""
        if self._over_channels is None:
            waiting = [m for m in self._both() if m._over_channels is None]
            asked = [GatedMap(m._position_names, m.gate) for m in waiting]
            for map_, found in zip(waiting, measure_positions(self.features, asked), strict=True):
                map_._over_channels = found
        assert self._over_channels is not None
        return self._over_channels

    @property
    def normalised(self) -> tuple[Tensor, Tensor]:
        """Sums over the channels (B, 1, H, W) of y and of y^2, y = LayerNorm over H, W."""
        if self._normalised is None:
            waiting = [m for m in self._both() if m._reads_normalised and m._normalised is None]
            mean = self.over_space["mean"]
            factors = [m._inverse_deviation() for m in waiting]
            # As a sum: see `benchmarks/NOTES.md`.
            found = normalised_sums(self.features + -mean, factors)
            for map_, sums in zip(waiting, found, strict=True):
                map_._normalised = sums
        assert self._normalised is not None
        return self._normalised

    def _inverse_deviation(self) -> Tensor:
        # LayerNorm of m * x is (x - mean(x)) * m / sqrt(m^2 var(x) + eps).
        n = count(self.features, SPACE)
        variance = self.over_space["standard_deviation"].square() * ((n - 1) / n)
        if self.gate is None:
            return (variance + LAYER_NORM_EPS).rsqrt()
        return self.gate * (self.gate * self.gate * variance + LAYER_NORM_EPS).rsqrt()

    @property
    def grid(self) -> Tensor:
        """The map averaged to 8 x 8 positions, (B, C, 8, 8)."""
        if self.gate is not None:
            return self.gate * self.plain.grid
        return self.over_space["grid"]


def spread_from_grid(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Return adaptive average pooling of 8 x 8 cells to `size`, fast where it only repeats them."""
    if is_traced(cells) or size[0] % GRID_SIDE or size[1] % GRID_SIDE:
        return F.adaptive_avg_pool2d(cells, size)
    b, c = cells.shape[:2]
    rows = cells[:, :, :, None, :, None]
    spread = rows.expand(b, c, GRID_SIDE, size[0] // GRID_SIDE, GRID_SIDE, size[1] // GRID_SIDE)
    return spread.reshape(b, c, *size)


class Squeeze(OperationModule):
    """Base class of the squeezes: declares the statistics it reads, so that several share them.

    A squeeze has two forms: `plain`, its formula, and `squeeze`, which reads shared statistics.
    """

    over_space: ClassVar[Names] = frozenset()
    """Results of `measure_channels` that it reads."""

    over_channels: ClassVar[Names] = frozenset()
    """Results of `measure_positions` that it reads."""

    reads_normalised: ClassVar[bool] = False
    """Whether it reads the normalised map; if so, `over_space` has its mean and deviation."""

    def squeeze(self, features: FeatureMap) -> Tensor:
        """Squeeze a map to which this operation was announced."""
        raise NotImplementedError

    def plain(self, x: Tensor) -> Tensor:
        """Squeeze (B, C, H, W), float32 or float64, by plain torch."""
        features = FeatureMap(x)
        features.expect([self])
        return self.squeeze(features)

    @property
    def axes(self) -> Axes:
        """Axes that it reduces."""
        return SPACE if self.over_space else CHANNELS

    def statistics(self, features: FeatureMap) -> dict[str, Tensor]:
        """Return the statistics of its kind, over space or over channels."""
        return features.over_space if self.over_space else features.over_channels

    @full_precision
    def forward(self, x: Tensor) -> Tensor:
        """Squeeze (B, C, H, W)."""
        return Squeeze.plain(self, x) if is_fused(x) else self.plain(x)


class Statistic(Squeeze):
    """Base class of the squeezes that are one statistic of the map."""

    name: ClassVar[str]

    def __init_subclass__(cls) -> None:
        """Find the statistic that it reads."""
        (cls.name,) = cls.over_space | cls.over_channels

    def squeeze(self, features: FeatureMap) -> Tensor:
        """Squeeze to (B, C, 1, 1) or (B, 1, H, W)."""
        return self.statistics(features)[self.name]

    def plain(self, x: Tensor) -> Tensor:
        """Squeeze to (B, C, 1, 1) or (B, 1, H, W)."""
        return PLAIN[self.name](x, self.axes)


class MeanAnd(Squeeze):
    """ReLU(w1 * mean + w2 * statistic); w1 = w2 = 1/2 at the start.

    The published code draws w1 and w2 at random, which may leave the ReLU dead from the start.
    """

    other: ClassVar[str]

    def __init_subclass__(cls) -> None:
        """Find the other statistic that it reads."""
        (cls.other,) = (cls.over_space | cls.over_channels) - {"mean"}

    def build(self, channels: int, size: tuple[int, int], affine: bool, **factory: Any) -> None:
        """Make the parameters."""
        self.weight = nn.Parameter(torch.full((2,), 0.5, **factory))

    def squeeze(self, features: FeatureMap) -> Tensor:
        """Squeeze to (B, C, 1, 1) or (B, 1, H, W)."""
        found = self.statistics(features)
        w1, w2 = self.weight.unbind()
        return F.relu(w1 * found["mean"] + w2 * found[self.other])

    def plain(self, x: Tensor) -> Tensor:
        """Squeeze to (B, C, 1, 1) or (B, 1, H, W)."""
        mean, other = reference_statistics.mean(x, self.axes), PLAIN[self.other](x, self.axes)
        return F.relu(self.weight[0] * mean + self.weight[1] * other)

    @staticmethod
    def together(operations: Sequence[MeanAnd], features: FeatureMap) -> Tensor:
        """Squeeze by O operations of one kind at once: (B, O, C) or (B, O, H * W)."""
        found = operations[0].statistics(features)
        weight = torch.stack([op.weight for op in operations])[:, :, None]
        rows = torch.stack([found[op.other].flatten(1) for op in operations], 1)
        mean = found["mean"].flatten(1).unsqueeze(1)
        return F.relu(weight[:, 0] * mean + weight[:, 1] * rows)
