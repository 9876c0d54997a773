"""Figures of operations and architecture parameters."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sase_ray.analysis.main_effects import main_effects, operation_shares
from sase_ray.analysis.outcomes import (
    ranking_metric,
)
from sase_ray.figures.outcomes import looks_of, thousands
from sase_ray.figures.style import (
    HUES,
    INK,
    MUTED,
    Look,
    attempted,
    label_ends,
    label_of,
    new_figure,
)
from sase_ray.results.load import Run

MONITORS = {
    "entropy": "entropy of alpha (1: uniform)",
    "dominant_eigenvalue": "dominant eigenvalue",
    "poor_share": "probability of poor operations",
    "discretisation_gap": "discretisation gap, nats",
}


def _panels(count: int, rows: int) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels in two columns, each with room for `rows` labelled rows."""
    height = (0.42 + 0.155 * rows) * ((count + 1) // 2) + 0.35
    figure = new_figure(5.0, height)
    grid = figure.subplots((count + 1) // 2, 2, squeeze=False, sharex=True)
    for unused in grid.flat[count:]:
        unused.axis("off")
    return figure, list(grid.flat[:count])


@attempted("shares of operations")
def shares_figure(run: Run) -> Figure | None:
    """Draw the share of each operation on each edge among good genotypes and among all."""
    shares = operation_shares(run)
    if shares.empty:
        return None
    edges = list(dict.fromkeys(shares["edge"]))
    figure, panels = _panels(len(edges), shares.groupby("edge").size().max())
    for axes, edge in zip(panels, edges, strict=True):
        own = shares[shares["edge"] == edge].sort_values(["good", "all"], ignore_index=True)
        for place, row in own.iterrows():
            axes.plot([100 * row["low"], 100 * row["high"]], [place, place], color=HUES[0],
                      linewidth=1.4, alpha=0.45)  # fmt: skip
        axes.plot(100 * own["good"], own.index, "o", color=HUES[0], markersize=4.5)
        axes.plot(100 * own["all"], own.index, "|", color=INK, markersize=8)
        _label_rows(axes, own["operation"], edge)
    figure.supxlabel("share with the operation, %: good genotypes (dot), all (bar)", fontsize=8)
    return figure


@attempted("effects of operations")
def effects_figure(run: Run) -> Figure | None:
    """Draw the main effect of every operation with its 95% interval; to the right is better."""
    found = main_effects(run)
    if found is None:
        return None
    metric = ranking_metric(run)
    scale, unit = -metric.sign * metric.scale, f"{metric.unit_of_difference} of {metric.title}"
    if metric.mode == "min":  # differences are a few thousandths
        scale, unit = 1000 * scale, f"less {metric.name}, 0.001 {metric.unit}".rstrip()
    edges = list(dict.fromkeys(found.effects["edge"]))
    figure, panels = _panels(len(edges), found.effects.groupby("edge").size().max())
    for axes, edge in zip(panels, edges, strict=True):
        own = found.effects[found.effects["edge"] == edge]
        own = own.assign(effect=scale * own["effect"]).sort_values("effect", ignore_index=True)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        for place, row in own.iterrows():
            clear = row["low"] * row["high"] > 0
            colour = HUES[0] if clear else MUTED
            axes.plot([scale * row["low"], scale * row["high"]], [place, place], color=colour,
                      linewidth=1.4, alpha=0.6)  # fmt: skip
            axes.plot(row["effect"], place, "o", color=colour, markersize=4.5)
        _label_rows(axes, own["operation"], edge)
    figure.supxlabel(f"effect against the edge's mean: {unit} → better", fontsize=8)
    return figure


def _label_rows(axes: Axes, names: pd.Series, title: str) -> None:
    axes.set_yticks(range(len(names)), names.map(label_of), fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_title(title.replace("_", " "), fontsize=8)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def alpha_figure(run: Run, strategy: str) -> Figure | None:
    """Draw the probabilities of a one-shot strategy's operations over time, means over searches.

    Args:
        run: Run of the searches.
        strategy: Name of a strategy; nothing is drawn for one without alpha.
    """
    alpha = run.alpha[run.alpha["strategy"] == strategy]
    return None if alpha.empty else draw_alpha_course(alpha)


@attempted("probabilities of operations")
def draw_alpha_course(alpha: pd.DataFrame) -> Figure | None:
    """Draw the probabilities of operations over samples, one panel per edge.

    Args:
        alpha: Rows of the table `alpha` of one or several searches, whose means are drawn.
    """
    variables = list(dict.fromkeys(alpha["variable"]))
    figure, panels = _panels(len(variables), 9)
    ends = []
    for axes, variable in zip(panels, variables, strict=True):
        own = alpha[alpha["variable"] == variable]
        # Searches evaluate at the same samples, if they are of one run.
        mean = own.pivot_table(
            index="search_samples", columns="operation", values="probability", sort=False
        )
        if mean.empty:  # only NaN
            continue
        last = mean.ffill().iloc[-1]
        best = last.idxmax()
        for operation in mean:
            chosen = operation == best
            style = Look(HUES[0] if chosen else MUTED, "-", "")
            axes.plot(mean.index, mean[operation], **style.line,
                      linewidth=1.8 if chosen else 0.8, alpha=1 if chosen else 0.75,
                      zorder=3 if chosen else 2)  # fmt: skip
            ends.append((axes, float(last[operation]), str(operation), style))
        axes.axhline(1 / mean.shape[1], color=INK, linewidth=0.7, linestyle=":")
        axes.set_title(str(variable).replace("_", " "), fontsize=8)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(thousands)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    figure.supxlabel("training samples of the search", fontsize=8)
    figure.supylabel("probability", fontsize=8)
    label_ends(figure, ends, size=6.5)
    return figure


@attempted("signs of a collapse")
def monitor_figure(run: Run) -> Figure | None:
    """Draw the signs of a collapse of one-shot searches over time: searches and their means."""
    known = [name for name in MONITORS if run.curves[name].notna().any()]
    if not known:
        return None
    look = looks_of(run)
    figure = new_figure(5.0, 1.9 * ((len(known) + 1) // 2))
    grid = figure.subplots((len(known) + 1) // 2, 2, squeeze=False)
    for unused in grid.flat[len(known) :]:
        unused.axis("off")
    ends = []
    for axes, name in zip(grid.flat, known, strict=False):
        for strategy, own in run.curves.dropna(subset=[name]).groupby("strategy", sort=False):
            style = look[str(strategy)]
            for _, search in own.groupby("seed"):
                axes.plot(search["search_samples"], search[name], color=style.color,
                          linewidth=0.6, alpha=0.5)  # fmt: skip
            mean = own.groupby("search_samples")[name].mean()
            axes.plot(mean.index, mean, **style.line)
            ends.append((axes, float(mean.iloc[-1]), str(strategy), style))
        axes.set_title(MONITORS[name], fontsize=8)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(thousands)
    figure.supxlabel("training samples of the search", fontsize=8)
    label_ends(figure, ends, size=6.5)
    return figure
