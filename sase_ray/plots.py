"""Figures of result tables, by matplotlib."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scikit_posthocs import critical_difference_diagram

from sase_ray.results import write_whole
from sase_ray.statistics import ALPHA
from sase_ray.tabular import TabularBenchmark

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
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    curve, dots = figure.subplots(1, 2)
    for name, rows in table.groupby("metric", sort=False):
        (line,) = curve.plot(rows["seconds"], rows["icc"], marker="o", label=LABELS[str(name)])
        bounds = rows["seconds"], rows["icc_low"], rows["icc_high"]
        curve.fill_between(*bounds, color=line.get_color(), alpha=0.12, linewidth=0)
    curve.axhline(0.5, color="grey", linewidth=1, linestyle=":")
    curve.set(
        title="reliability of one trial (95% interval)",
        xlabel="cost of a trial, device-seconds",
        ylabel="ICC",
        ylim=(-0.02, 1.02),
    )
    curve.legend(fontsize="small")

    order = scores.mean(axis=1).sort_values().index
    paired = scores.loc[order] - scores.mean(axis=0) + scores.to_numpy().mean()
    for seed in paired.columns:
        dots.plot(range(len(paired)), paired[seed], ".", alpha=0.6, label=f"seed {seed}")
    dots.plot(range(len(paired)), paired.mean(axis=1), "k_", markersize=12, label="mean")
    dots.set(
        title="last epoch, each seed's common shift removed",
        xlabel="genotype, by its mean",
        ylabel=LABELS[metric],
    )
    dots.legend(fontsize="small", ncols=2)
    return _write(figure, folder / "reliability.png")


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
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    colours = {}
    for name, rows in curves.groupby("strategy", sort=False):
        (line,) = left.plot(rows["samples"], scale * rows["regret"], label=name)
        colours[name] = line.get_color()
        bounds = rows["samples"], scale * rows["low"], scale * rows["high"]
        left.fill_between(*bounds, color=line.get_color(), alpha=0.15, linewidth=0)
    floor = scale * table.regret(table.best(metric), metric)
    left.axhline(floor, color="grey", linewidth=1, linestyle=":")
    left.annotate(
        "best by validation", (curves["samples"].max(), floor), ha="right", va="bottom", fontsize=8
    )
    left.set(
        title=f"mean of {ends['seed'].nunique()} searches (band: its 95% interval)",
        xlabel="training samples of the search",
        ylabel=f"regret on test images, {unit}",
        ylim=(0, None),
    )
    left.legend(fontsize="small")
    right.set_title(f"mean rank (joined: not told apart at {ALPHA:.0%})")
    if len(ranks) > 2 and np.ptp(ranks) > 0:
        critical_difference_diagram(ranks, p_values, ax=right, alpha=ALPHA, color_palette=colours)
    else:
        right.barh(list(ranks.index), ranks)
    return _write(figure, folder / "regret.png")


def _write(figure: Figure, path: Path) -> Path:
    write_whole(path, lambda partial: figure.savefig(partial, format="png", dpi=120))
    return path
