"""Figures of result tables, by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scikit_posthocs import critical_difference_diagram

from sase_ray.figures.style import INK, MUTED, Look, label_ends, label_of, looks, new_figure, styled
from sase_ray.files import write_whole
from sase_ray.statistics.paired_tests import ALPHA
from sase_ray.tabular_benchmark.benchmark import TabularBenchmark

LABELS = {
    "val_loss": "validation cross-entropy",
    "val_accuracy": "validation accuracy",
    "last_val_loss": "cross-entropy, last weights",
    "last_val_accuracy": "accuracy, last weights",
}


def plot_reliability(table: pd.DataFrame, scores: pd.DataFrame, metric: str, folder: Path) -> Path:
    """Draw ICC against cost, and the scores that it comes from.

    Args:
        table: of `reliability_table`.
        scores: a row a genotype, a column a seed.
        metric: of the scores, the one that searches rank by.
        folder: where `reliability.png` is written.
    """
    with styled():
        figure = new_figure(11, 4.2)
        curve, dots = figure.subplots(1, 2)
        _draw_icc(figure, curve, table)
        order = scores.mean(axis=1).sort_values().index
        paired = scores.loc[order] - scores.mean(axis=0) + scores.to_numpy().mean()
        for seed in paired.columns:
            dots.plot(range(len(paired)), paired[seed], ".", alpha=0.6, label=f"seed {seed}")
        dots.plot(
            range(len(paired)), paired.mean(axis=1), "_", color=INK, markersize=12, label="mean"
        )
        dots.set(
            title="last epoch, each seed's common shift removed",
            xlabel="genotype, by its mean",
            ylabel=LABELS[metric],
        )
        dots.legend(ncols=2)
        return _write(figure, folder / "reliability.png")


def _write(figure: Figure, path: Path) -> Path:
    write_whole(path, lambda partial: figure.savefig(partial, format="png", dpi=120))
    return path


def _draw_icc(figure: Figure, axes: Axes, table: pd.DataFrame) -> None:
    found = looks(LABELS[str(name)] for name in table["metric"].unique())
    ends = []
    for name, rows in table.groupby("metric", sort=False):
        label = LABELS[str(name)]
        look = found[label]
        axes.plot(rows["seconds"], rows["icc"], marker=look.marker, **look.line)
        bounds = rows["seconds"], rows["icc_low"], rows["icc_high"]
        axes.fill_between(*bounds, color=look.color, alpha=0.12, linewidth=0)
        ends.append((axes, float(rows["icc"].iloc[-1]), label, look))
    axes.axhline(0.5, color=MUTED, linewidth=1, linestyle=":")
    axes.set(
        title="reliability of one trial (95% interval)",
        xlabel="cost of a trial, device-seconds",
        ylabel="ICC",
        ylim=(-0.02, 1.02),
    )
    label_ends(figure, ends)


def plot_table_comparison(
    curves: pd.DataFrame,
    ends: pd.DataFrame,
    p_values: pd.DataFrame,
    table: TabularBenchmark,
    metric: str,
    folder: Path,
) -> Path:
    """Draw regret over cost, and the mean ranks with what can be told apart.

    Args:
        curves: of `regret_curves`.
        ends: a row a search: `strategy`, `seed`, `regret`.
        p_values: of `pairwise`.
        table: gives the scale.
        metric: that searches rank by.
        folder: where `regret.png` is written.
    """
    scale, unit = (1.0, "nats") if metric == "val_loss" else (100.0, "points")
    ranks = ends.pivot(index="seed", columns="strategy", values="regret").rank(axis=1).mean()
    found = looks(str(name) for name in curves["strategy"].unique())
    with styled():
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
        right.set_title(f"mean rank (joined: not told apart at {ALPHA:.0%})")
        if len(ranks) > 2 and np.ptp(ranks) > 0:
            draw_ranks(right, ranks, p_values, found)
        else:
            right.barh(list(ranks.index), ranks)
        return _write(figure, folder / "regret.png")


def draw_ranks(
    axes: Axes, ranks: pd.Series, p_values: pd.DataFrame, found: Mapping[str, Look]
) -> None:
    """Draw a critical-difference diagram (Demsar 2006) by scikit-posthocs.

    Args:
        axes: to draw on.
        ranks: mean rank of at least three treatments, not all alike.
        p_values: of `pairwise`.
        found: the treatments' looks.
    """
    axes.spines["top"].set_visible(True)
    drawn = critical_difference_diagram(
        ranks,
        p_values,
        ax=axes,
        alpha=ALPHA,
        color_palette={name: found[str(name)].color for name in ranks.index},
        crossbar_props={"color": INK},
        label_fmt_left="{label} ({rank:.2f}) ",
        label_fmt_right=" {label} ({rank:.2f})",
        text_h_margin=0.06 * np.ptp(ranks),
    )
    for label in drawn["labels"]:
        label.set(color=INK, text=label_of(label.get_text()))
    axes.grid(visible=False)
