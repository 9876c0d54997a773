"""Figure of a comparison on a ground-truth table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sase_ray.figures.rank_diagram import draw_ranks
from sase_ray.figures.style import MUTED, Look, attempted, label_ends, looks, new_figure
from sase_ray.statistics.paired_tests import SIGNIFICANCE
from sase_ray.tabular_benchmark.benchmark import TabularBenchmark
from trainables.metrics import find_metric
from trainables.persistence.store import write_whole


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, atomically."""
    write_whole(path, lambda partial: figure.savefig(partial, format="png", dpi=120))
    return path


@attempted("regret.png")
def plot_table_comparison(
    curves: pd.DataFrame,
    ends: pd.DataFrame,
    p_values: pd.DataFrame,
    table: TabularBenchmark,
    metric: str,
    folder: Path,
) -> Path | None:
    """Draw regret over cost, and the mean ranks with their significant differences.

    Args:
        curves: Result of `regret_curves`.
        ends: One row per search: `strategy`, `seed`, `regret`.
        p_values: Result of `pairwise`.
        table: Ground-truth table, which gives the scale.
        metric: Metric by which searches rank.
        folder: Folder where `regret.png` is written.
    """
    kind = find_metric(metric)
    scale, unit = kind.scale, kind.unit_of_difference
    ranks = ends.pivot(index="seed", columns="strategy", values="regret").rank(axis=1).mean()
    found = looks(str(name) for name in curves["strategy"].unique())
    figure = new_figure(11, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    lines = []
    for name, rows in curves.groupby("strategy", sort=False):
        look = found[str(name)]
        left.plot(rows["samples"], scale * rows["regret"], **look.line)
        bounds = rows["samples"], scale * rows["low"], scale * rows["high"]
        left.fill_between(*bounds, color=look.color, alpha=0.15, linewidth=0)
        lines.append((left, scale * float(rows["regret"].iloc[-1]), str(name), look))
    floor = scale * table.regret(table.best(metric), metric)
    left.axhline(floor, color=MUTED, linewidth=1, linestyle=":")
    left.set(
        title=f"mean of {ends['seed'].nunique()} searches (band: its 95% interval)",
        xlabel="training samples of the search",
        ylabel=f"regret on test images, {unit}",
        ylim=(0, None),
    )
    label_ends(figure, [*lines, (left, floor, "best by validation", Look(MUTED, ":", ""))])
    right.set_title(f"mean rank (joined: not told apart at {SIGNIFICANCE:.0%})")
    if len(ranks) > 2 and np.ptp(ranks) > 0:
        draw_ranks(right, ranks, p_values, found)
    else:
        right.barh(list(ranks.index), ranks)
    return save_figure(figure, folder / "regret.png")
