"""Numbers and lists as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sase_ray.report.document import Part, Shown


def figure_parts(figure: Figure | None, name: str, caption: str, **options: Any) -> Iterator[Part]:
    """Yield a figure, or nothing if there is none."""
    if figure is not None:
        yield Shown(figure, name, caption, **options)


def number(value: float, form: str = ",.0f") -> str:
    """Format a number; an empty text for NaN."""
    return "" if np.isnan(value) else format(value, form)


def p_text(value: float) -> str:
    """Format a p-value; an empty text for NaN."""
    if np.isnan(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_is(value: float) -> str:
    """Format a p-value as a relation, such as "p = 0.012"."""
    return f"p {p_text(value)}" if value < 0.001 else f"p = {p_text(value)}"


def listed(facts: Mapping[str, Any]) -> str:
    """Join names and values by commas, leaving out values that are None."""
    return ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None)
