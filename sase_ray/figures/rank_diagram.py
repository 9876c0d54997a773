"""Critical-difference diagram."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scikit_posthocs import critical_difference_diagram

from sase_ray.figures.style import INK, Look, label_of
from sase_ray.statistics.paired_tests import SIGNIFICANCE


def draw_ranks(
    axes: Axes, ranks: pd.Series, p_values: pd.DataFrame, found: Mapping[str, Look]
) -> None:
    """Draw a critical-difference diagram (Demsar 2006) by scikit-posthocs.

    Args:
        axes: Axes to draw on.
        ranks: Mean ranks of at least three treatments, not all equal.
        p_values: Result of `pairwise`.
        found: Look of each treatment.
    """
    axes.spines["top"].set_visible(True)
    drawn = critical_difference_diagram(
        ranks,
        p_values,
        ax=axes,
        alpha=SIGNIFICANCE,
        color_palette={name: found[str(name)].color for name in ranks.index},
        crossbar_props={"color": INK},
        label_fmt_left="{label} ({rank:.2f}) ",
        label_fmt_right=" {label} ({rank:.2f})",
        text_h_margin=0.06 * np.ptp(ranks),
    )
    for label in drawn["labels"]:
        label.set(color=INK, text=label_of(label.get_text()))
    axes.grid(visible=False)
