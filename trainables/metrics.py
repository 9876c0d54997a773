"""Reported numbers: each is declared once, with its direction, unit and format.

A number is reported under its own name (`entropy`), or under the name of the images it was measured
on and its own (`val_loss`, `test_accuracy`). Histories, journals and tables keep every declared
number, whatever reports it; searchers, tables and figures take its direction from here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from search_spaces.errors import UserError, unknown_name
from search_spaces.registered import FURTHER

if TYPE_CHECKING:  # commands that only list load this file, too
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Mode = Literal["min", "max"]

PARTS = ("last_val", "shared_val", "val", "test", "train")
"""Prefixes of the names of reported numbers: the images, or weights, that they belong to."""

SHARED_LOSS = "shared_val_loss"
"""Name of the loss on validation images with the weights of a supernet."""

LARGEST = 700.0
"""Largest logarithm that is restored: one end of an interval of two values may be anywhere."""

SPREAD = "_sd"
"""Suffix of the name of a standard deviation over seeds."""

LEAST = 1e-12
"""Smallest value whose logarithm is compared: smaller errors are rounding errors of float32."""

FIELDS = (
    "genotype",
    "epoch",
    "samples",
    "train_seconds",
    "diverged",
    "reason",
    "finished",
    "alpha",
    "ranking",
    "scores",
)
"""Entries of a trial's result that are kept although they are not metrics."""


@dataclass(frozen=True)
class Metric:
    """A number that is reported.

    Args:
        name: Name without the images it is measured on, such as `loss`.
        mode: Whether smaller (min) or larger (max) is better; None for a diagnostic.
        unit: Unit of the shown value; empty for none.
        format: Format specification of the shown value.
        scale: Factor from the stored value to the shown one.
        difference: Unit of a shown difference; the default is `unit`.
        label: Its name in figures; the default is `name`.
        lost: Stored value of a training that diverged; the default is the infinitely bad one.
        share: Whether it is a share of images, 0 to 1: a multiple of one image's share, with the
            sampling error of a proportion.
        ratio: Whether values differ by ratios, as positive ones of several orders of magnitude do:
            their logarithms are compared, so that means are geometric.
    """

    name: str
    mode: Mode | None
    unit: str = ""
    format: str = ".4f"
    scale: float = 1.0
    difference: str = ""
    label: str = ""
    lost: float | None = None
    share: bool = False
    ratio: bool = False

    @property
    def sign(self) -> int:
        """Factor that makes the smaller value the better one: 1 or -1.

        Raises:
            UserError: The metric has no direction.
        """
        return 1 if self.direction == "min" else -1

    @property
    def direction(self) -> Mode:
        """Mode of a metric that has one.

        Raises:
            UserError: The metric has no direction.
        """
        if self.mode is None:
            raise UserError(f"metric {self.name!r} is a diagnostic: nothing is ranked by it")
        return self.mode

    @property
    def when_lost(self) -> float:
        """Stored value of a training that diverged: worse than any other."""
        return self.sign * float("inf") if self.lost is None else self.lost

    @property
    def title(self) -> str:
        """Name of the metric in figures."""
        return self.label or self.name.replace("_", " ")

    @property
    def unit_of_difference(self) -> str:
        """Unit of a shown difference."""
        return self.difference or self.unit

    @property
    def hint(self) -> str:
        """Remark on its direction where lower is better: for readers expect the opposite."""
        return " (lower is better)" if self.direction == "min" else ""

    @property
    def mean(self) -> str:
        """Kind of mean that is taken of it."""
        return "geometric mean" if self.ratio else "mean"

    def show(self, value: float) -> str:
        """Return a stored value as a table shows it, without its unit."""
        return format(self.scale * value, self.format)

    def tell(self, value: float) -> str:
        """Return a stored value as a sentence shows it, with its unit."""
        space = "" if self.unit in ("", "%") else " "
        return f"{self.show(value)}{space}{self.unit}"

    def compared(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return stored values on the scale on which they are averaged and tested."""
        import numpy as np

        stored = np.asarray(values, dtype=float)
        return np.log(np.maximum(stored, LEAST)) if self.ratio else stored

    def restored(self, compared: float) -> float:
        """Return a mean or a difference on that scale as tables store it.

        A difference of logarithms is stored as a ratio.
        """
        return math.exp(min(compared, LARGEST)) if self.ratio else compared

    def is_better(self, difference: float) -> bool:
        """Return whether a stored difference, or ratio, is in favour of the first value."""
        return self.sign * float(self.compared(difference)) < 0

    def show_difference(self, difference: float) -> str:
        """Return a stored difference as a table shows it, such as "+1.20", or a ratio: "×0.45"."""
        if self.ratio:
            return f"×{difference:.3g}"
        return format(self.scale * difference, f"+{self.format}")

    def tell_difference(self, difference: float) -> str:
        """Return a stored difference up to the other value: "+1.20 points to", "0.45 times"."""
        if self.ratio:
            return f"{difference:.3g} times that of"
        return f"{self.show_difference(difference)} {self.unit_of_difference}".rstrip() + " to"

    def size(self, difference: float) -> str:
        """Return the size of a stored difference: "1.20 points", or "a factor of 2.22"."""
        change = abs(float(self.compared(difference)))
        if self.ratio:
            return f"a factor of {math.exp(change):.3g}"
        return f"{self.show(change)} {self.unit_of_difference}".rstrip()


_DECLARED: dict[str, Metric] = {}


def declare(*metrics: Metric) -> None:
    """Enter metrics into the catalogue, so that they are kept wherever they are reported.

    Raises:
        UserError: The name is taken by another metric, or by another entry of a result.
    """
    for metric in metrics:
        if _DECLARED.get(metric.name, metric) != metric or metric.name in FIELDS:
            raise UserError(f"metric {metric.name!r} is already declared: choose another name")
        _DECLARED[metric.name] = metric
    bare_name.cache_clear()


FURTHER.append(lambda: [(declare, tuple(_DECLARED.values()))])


@cache
def bare_name(reported: str) -> str:
    """Return a metric's name without what it was measured on: `loss` for `val_loss_sd`."""
    bare = reported.removesuffix(SPREAD)
    if bare in _DECLARED:
        return bare
    part = next((part for part in PARTS if bare.startswith(f"{part}_")), None)
    return bare if part is None else bare[len(part) + 1 :]


def find_metric(reported: str) -> Metric:
    """Return the metric of a reported name, such as `accuracy` for `val_accuracy`.

    Raises:
        UserError: No such metric is declared.
    """
    bare = bare_name(reported)
    if bare not in _DECLARED:
        raise unknown_name("metric", bare, _DECLARED)
    return _DECLARED[bare]


def describe(reported: str) -> str:
    """Return a reported name with its direction: "val_loss (lower is better)".

    Raises:
        UserError: No such metric is declared, or it has no direction.
    """
    better = "lower" if find_metric(reported).direction == "min" else "higher"
    return f"{reported} ({better} is better)"


def is_declared(reported: str) -> bool:
    """Return whether a reported name belongs to a declared metric."""
    return bare_name(reported) in _DECLARED


def recorded(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a trial's result that is kept: `FIELDS` and every declared metric."""
    return {key: value for key, value in result.items() if key in FIELDS or is_declared(key)}


def undeclared(result: Mapping[str, Any]) -> list[str]:
    """Return the names of the numbers in a result that would be lost."""
    return [
        key
        for key, value in result.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and key not in FIELDS
        and not is_declared(key)
    ]


LOSS = Metric("loss", "min", "nats", label="cross-entropy")
ACCURACY = Metric(
    "accuracy", "max", "%", ".2f", scale=100.0, difference="points", lost=0.0, share=True
)
declare(LOSS, ACCURACY, Metric("peak_memory_mib", "min", "MiB", ".0f", label="peak memory"))
