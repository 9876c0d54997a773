"""Figure of how reliably a protocol ranks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sase_ray.figures.regret import save_figure
from sase_ray.figures.style import INK, MUTED, attempted, label_ends, looks, new_figure
from trainables.tasks.contract import Task


@attempted("reliability.png")
def plot_reliability(
    table: pd.DataFrame, scores: pd.DataFrame, metric: str, task: Task, folder: Path
) -> Path | None:
    """Draw ICC against cost, and the scores that it is computed from.

    Args:
        table: Result of `reliability_table`.
        scores: One row per genotype, one column per seed.
        metric: Metric of the scores, by which searches rank.
        task: Task that declares the metrics.
        folder: Folder where `reliability.png` is written.
    """
    figure = new_figure(11, 4.2)
    curve, dots = figure.subplots(1, 2)
    _draw_icc(figure, curve, table.assign(label=[_label(m, task) for m in table["metric"]]))
    order = scores.mean(axis=1).sort_values().index
    paired = scores.loc[order] - scores.mean(axis=0) + scores.to_numpy().mean()
    for seed in paired.columns:
        dots.plot(range(len(paired)), paired[seed], ".", alpha=0.6, label=f"seed {seed}")
    dots.plot(range(len(paired)), paired.mean(axis=1), "_", color=INK, markersize=12, label="mean")
    dots.set(
        title="last epoch, each seed's common shift removed",
        xlabel="genotype, by its mean",
        ylabel=_label(metric, task),
    )
    dots.legend(ncols=2)
    return save_figure(figure, folder / "reliability.png")


def _label(name: str, task: Task) -> str:
    title = task.metric(name).title
    return f"{title}, last weights" if name.startswith("last_") else f"validation {title}"


def _draw_icc(figure: Figure, axes: Axes, table: pd.DataFrame) -> None:
    found = looks(table["label"])
    ends = []
    for label, rows in table.groupby("label", sort=False):
        look = found[str(label)]
        axes.plot(rows["seconds"], rows["icc"], marker=look.marker, **look.line)
        bounds = rows["seconds"], rows["icc_low"], rows["icc_high"]
        axes.fill_between(*bounds, color=look.color, alpha=0.12, linewidth=0)
        ends.append((axes, float(rows["icc"].iloc[-1]), str(label), look))
    axes.axhline(0.5, color=MUTED, linewidth=1, linestyle=":")
    axes.set(
        title="reliability of one trial (95% interval)",
        xlabel="cost of a trial, device-seconds",
        ylabel="ICC",
        ylim=(-0.02, 1.02),
    )
    label_ends(figure, ends)
