"""Figures of the report: each function returns a run's matplotlib figure, or None without data.

To save one for a paper, within `sase_ray.figures.style.styled`:
``anytime_figure(load_run(path)).savefig("a.pdf")``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from sase_ray.analysis.anytime import anytime
from sase_ray.analysis.outcomes import (
    BASELINE,
    final_column,
    final_metric,
    final_results,
    proxy_agreement,
    proxy_and_final,
    rank_tests,
    ranking_metric,
)
from sase_ray.figures.rank_diagram import draw_ranks
from sase_ray.figures.style import (
    GRID,
    INK,
    MUTED,
    Look,
    attempted,
    label_ends,
    label_of,
    looks,
    new_figure,
)
from sase_ray.results.load import Run
from sase_ray.statistics.rank_tests import pairwise, pareto_front
from trainables.metrics import Metric

COSTS = {
    "search_seconds": "search, device-seconds",
    "parameters": "parameters of the network",
    "macs": "multiply-accumulates an image",
    "latency_ms": "latency, milliseconds of 32 images",
}
FEW_DECADES = 100
"""Ratio of the ends of a logarithmic axis below which it has ticks between the powers of ten."""

AGAINST = {
    "search_samples": "training samples of the search",
    "search_seconds": "device-seconds of the search",
    "trials": "trials begun",
}


def looks_of(run: Run) -> dict[str, Look]:
    """Return the look of every strategy of a run, the same in all figures; baselines are grey."""
    families = dict(zip(run.strategies["name"], run.strategies["family"], strict=True))
    searched = [*run.curves["strategy"].unique(), *run.searches["strategy"].unique()]
    searched += [name for name, family in families.items() if family != BASELINE]
    found = looks(searched)
    return found | {
        n: Look(MUTED, ":", "o", filled=False) for n, f in families.items() if f == BASELINE
    }


@attempted("final results")
def final_figure(run: Run) -> Figure | None:
    """Draw mean final results with their 95% intervals, and the results of single searches."""
    column, metric = final_column(run), final_metric(run)
    table = run.strategies[run.strategies[column].notna()].iloc[::-1]
    if table.empty:
        return None
    look = looks_of(run)
    means = final_results(run).groupby(["name", "seed"])["compared"].mean()
    singles = metric.scale * means.map(metric.restored)
    figure = new_figure(5.0, 0.75 + 0.27 * len(table))
    axes = figure.add_subplot()
    for place, row in enumerate(table.to_dict("records")):
        name, colour = row["name"], look[row["name"]].color
        interval = [metric.scale * row[end] for end in ("ci_low", "ci_high")]
        axes.plot(
            interval, [place, place], color=colour, linewidth=2, solid_capstyle="round",
            alpha=0.55,
        )  # fmt: skip
        if name in singles.index.get_level_values("name"):
            own = singles.loc[name]
            axes.plot(own, [place] * len(own), ".", color=colour, markersize=3.5, alpha=0.8)
        face = "none" if row["family"] == BASELINE else colour
        axes.plot(
            metric.scale * row[column], place, look[name].marker, color=colour,
            markerfacecolor=face, markersize=6,
        )  # fmt: skip
    axes.set_yticks(range(len(table)), table["name"].map(label_of))
    axes.set(xlabel=_label(run), ylim=(-0.6, len(table) - 0.4))
    _set_scale(axes, "x", metric)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _label(run: Run) -> str:
    """Return the label of an axis of final results."""
    metric = final_metric(run)
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{final_column(run).replace('_', ' ')}{unit}{metric.hint}"


def _set_scale(axes: Axes, name: Literal["x", "y"], metric: Metric) -> None:
    """Make an axis logarithmic, with plain numbers, if the metric on it differs by ratios."""
    if not metric.ratio:
        return
    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < FEW_DECADES * low else (1,)))
    axis.set_major_formatter(lambda value, position: f"{value:g}")
    axis.set_minor_locator(NullLocator())


@attempted("ranks")
def rank_figure(run: Run) -> Figure | None:
    """Draw the critical-difference diagram of Demsar (2006); None without enough searches."""
    tests = rank_tests(run)
    if tests is None or not tests.can_draw or np.ptp(tests.ranks) == 0:
        return None
    look = looks_of(run)
    figure = new_figure(5.0, 0.9 + 0.16 * len(tests.ranks))
    axes = figure.add_subplot()
    draw_ranks(axes, tests.ranks, pairwise(tests.blocks), look)
    return figure


@attempted("costs")
def cost_figure(run: Run) -> Figure | None:
    """Draw the cost of every search in device-seconds, and the mean of each strategy."""
    searches = run.searches[run.searches["seconds"] > 0]
    if searches.empty:
        return None
    look = looks_of(run)
    mean = searches.groupby("strategy")["seconds"].mean().sort_values(ascending=False)
    figure = new_figure(5.0, 0.75 + 0.27 * len(mean))
    axes = figure.add_subplot()
    for place, (name, value) in enumerate(mean.items()):
        own = searches.loc[searches["strategy"] == name, "seconds"]
        colour = look[str(name)].color
        axes.plot(own, [place] * len(own), ".", color=colour, markersize=5, alpha=0.6)
        axes.plot(value, place, "|", color=colour, markersize=11, markeredgewidth=2.2)
        axes.annotate(
            f"{value:,.0f}", (value, place), (0, 6), textcoords="offset points", ha="center",
            va="bottom", fontsize=7, color=MUTED,
        )  # fmt: skip
    axes.set_yticks(range(len(mean)), mean.index.map(label_of))
    axes.set(xlabel="device-seconds of a search", ylim=(-0.6, len(mean) - 0.2))
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


@attempted("best so far")
def anytime_figure(run: Run, against: str = "search_samples") -> Figure | None:
    """Draw the incumbents' validation metric over cost: means, and 95% bands of several searches.

    Args:
        run: Run with curves.
        against: Cost: search_samples, search_seconds or trials.
    """
    curves = anytime(run, against)
    if curves.empty:
        return None
    metric = ranking_metric(run)
    scale = metric.scale
    look = looks_of(run)
    figure = new_figure()
    axes = figure.add_subplot()
    for name, own in curves.groupby("strategy", sort=False):
        colour = look[str(name)].color
        axes.step(own[against], scale * own["value"], where="post", **look[str(name)].line)
        axes.fill_between(
            own[against], scale * own["low"], scale * own["high"], step="post", color=colour,
            alpha=0.1, linewidth=0,
        )  # fmt: skip
    unit = f", {metric.unit}" if metric.unit else ""
    axes.set(xlabel=AGAINST[against], ylabel=f"incumbent's validation {metric.title}{unit}")
    axes.set_ylim(*_sensible(scale * curves["value"], scale * curves[["low", "high"]]))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(thousands)
    ends = curves.groupby("strategy", sort=False)["value"].last()
    label_ends(figure, [(axes, scale * y, str(name), look[str(name)]) for name, y in ends.items()])
    return figure


def _sensible(values: pd.Series, bands: pd.DataFrame) -> tuple[float, float]:
    """Return limits of the axis that show the means; bands of few searches may exceed them."""
    low, high = float(values.min()), float(values.max())
    room = max(high - low, 0.02 * abs(high), 1e-9)
    bottom, top = bands.min().min(), bands.max().max()
    bottom = low if np.isnan(bottom) else max(bottom, low - 1.5 * room)
    top = high if np.isnan(top) else min(top, high + 1.5 * room)
    return bottom - 0.05 * room, top + 0.05 * room


def thousands(value: float, position: object) -> str:
    """Format a tick with k, M or G."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


@attempted("results against costs")
def tradeoff_figure(run: Run, cost: str = "parameters") -> Figure | None:
    """Draw final results against a cost; the line joins modules that no other beats in both.

    Args:
        run: Run with strategies.
        cost: Cost: search_seconds, parameters, macs or latency_ms.
    """
    column, metric = final_column(run), final_metric(run)
    table = run.strategies[np.isfinite(run.strategies[column])]
    table = table[np.isfinite(table[cost])]
    if cost == "search_seconds":
        table = table[table["family"] != BASELINE]
    if len(table) < 2:
        return None
    look = looks_of(run)
    results = metric.scale * table[column]
    front = table[pareto_front(table[cost], -metric.sign * table[column])].sort_values(cost)
    figure = new_figure()
    axes = figure.add_subplot()
    axes.step(
        front[cost], metric.scale * front[column], where="post", color=INK, linewidth=1,
        alpha=0.6, zorder=1,
    )  # fmt: skip
    for row in table.to_dict("records"):
        style = look[row["name"]]
        face = style.color if style.filled else "none"
        axes.plot(
            row[cost], metric.scale * row[column], style.marker, color=style.color,
            markerfacecolor=face, markersize=6.5,
        )  # fmt: skip
    _set_scale(axes, "y", metric)
    axes.margins(0.07, 0.1)
    axes.set(xlabel=COSTS[cost], ylabel=_label(run))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(thousands)
    _lead_to_labels(
        figure, axes, table["name"].tolist(), table[cost].tolist(), results.tolist(), look
    )
    return figure


def _lead_to_labels(
    figure: Figure,
    axes: Axes,
    names: Sequence[str],
    xs: Sequence[float],
    ys: Sequence[float],
    look: dict[str, Look],
) -> None:
    """Write the points' names at the right, each at the end of a thin line from its point."""
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    right = axes.get_xlim()[1]
    for x, y in zip(xs, ys, strict=True):
        axes.plot([x, right], [y, y], color=GRID, linewidth=0.8, zorder=0.5)
    axes.grid(axis="y", visible=False)
    ends = [(axes, y, name, look[name]) for name, y in zip(names, ys, strict=True)]
    label_ends(figure, ends, size=7.5, points=True)


@attempted("agreement")
def agreement_figure(run: Run) -> Figure | None:
    """Draw the final result of every answer against its proxy score, seeds' means removed."""
    paired = proxy_and_final(run)
    if np.isnan(proxy_agreement(run).tau):
        return None
    metric = ranking_metric(run)
    final = final_metric(run)
    sign, scale = -metric.sign, metric.scale
    result = paired["final_centred"].map(final.restored) * (1.0 if final.ratio else final.scale)
    look = looks_of(run)
    figure = new_figure()
    axes = figure.add_subplot()
    axes.axhline(final.restored(0.0), color=MUTED, linewidth=0.7)
    axes.axvline(0, color=MUTED, linewidth=0.7)
    for name, own in paired.groupby("strategy", sort=False):
        style = look[str(name)]
        axes.plot(
            sign * scale * own["proxy_centred"], result[own.index], style.marker,
            color=style.color, markersize=6, alpha=0.8, label=label_of(str(name)),
        )  # fmt: skip
    better = f"lower {metric.name}" if metric.mode == "min" else metric.unit_of_difference
    unit = f", {final.unit_of_difference}" if final.unit_of_difference else ""
    less = ",\nratio to" if final.ratio else f"{unit}\nless"
    axes.set(
        xlabel=f"better by proxy → ({better}, less its seed's mean)",
        ylabel=f"final {final.title}{less} its seed's mean{final.hint}",
    )
    _set_scale(axes, "y", final)
    axes.margins(0.08)
    # Points of a strategy are far apart, so that no label could stand next to all of them.
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, handletextpad=0.1,
        borderaxespad=0,
    )  # fmt: skip
    return figure
