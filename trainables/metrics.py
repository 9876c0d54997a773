"""Reported numbers: each is declared once, with its direction, unit and format.

A number is reported under its own name (`entropy`), or under the name of the images it was measured
on and its own (`val_loss`, `test_accuracy`). Histories, journals and tables keep every declared
number, whatever reports it; searchers, tables and figures take its direction from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from search_spaces.errors import UserError, unknown_name

Mode = Literal["min", "max"]

PARTS = ("last_val", "shared_val", "val", "test", "train")
"""Prefixes of the names of reported numbers: the images, or weights, that they belong to."""

SHARED_LOSS = "shared_val_loss"
"""Name of the loss on validation images with the weights of a supernet."""

SPREAD = "_sd"
"""Suffix of the name of a standard deviation over seeds."""

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
    """

    name: str
    mode: Mode | None
    unit: str = ""
    format: str = ".4f"
    scale: float = 1.0
    difference: str = ""
    label: str = ""
    lost: float | None = None

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

    def show(self, value: float) -> str:
        """Return a stored value as a table shows it, without its unit."""
        return format(self.scale * value, self.format)


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
    "accuracy", "max", "%", ".2f", scale=100.0, difference="points", label="accuracy", lost=0.0
)
declare(LOSS, ACCURACY, Metric("peak_memory_mib", "min", "MiB", ".0f", label="peak memory"))
