"""The attention block of a genotype, drawn as a graph with its operations on the edges."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch

from sase_ray.figures.style import HUES, INK, MUTED, PAPER, new_figure, styled
from search_spaces.genotype import EDGE_KINDS, Genotype

CHANNEL, SPATIAL = HUES[0], HUES[1]
WIDTH, HEIGHT = 1.62, 0.62
"""Of an operation's box."""
BOXES = {
    "channel_squeeze": (1.75, 3.0),
    "channel_excite": (5.0, 3.0),
    "refine_excite": (5.0, 1.9),
    "refined_squeeze": (7.6, 1.0),
    "spatial_squeeze": (7.6, 0.0),
    "spatial_excite": (10.65, 0.5),
}
"""Centre of each edge's operation."""
_TOP, _MIDDLE, _JOIN = 3.0, 1.0, 0.5
_X, _Z, _TIMES, _CAT, _MEAN, _SUM = 0.0, 3.35, 6.15, 9.05, 12.25, 13.35


def draw_block(genotype: Genotype | str) -> Figure:
    """Draw the block of a one-block genotype.

    Channel operations are blue, spatial ones orange; circles compute what they say.

    Raises:
        UserError: it is not a genotype, or has several stages.
    """
    ops = Genotype.parse(genotype).edges()
    with styled():
        figure = new_figure(9.0, 3.15)
        axes = figure.add_subplot()
        axes.set(xlim=(-0.4, 14.9), ylim=(-0.62, 3.72), aspect="equal")
        axes.axis("off")
        _draw_lines(axes)
        for edge, (x, y) in BOXES.items():
            _draw_operation(axes, x, y, edge, ops[edge])
        for x, y, sign in ((_TIMES, _MIDDLE, "×"), (_MEAN, 1.75, "mean"), (_SUM, 1.75, "×")):
            _draw_circle(axes, x, y, sign)
        _draw_circle(axes, _SUM + 0.95, 1.75, "+")
        _draw_join(axes)
        axes.text(_X - 0.12, _MIDDLE, "x", ha="right", va="center", weight="bold", fontsize=11)
        axes.annotate(
            "output", (_SUM + 0.95, 1.45), (_SUM + 0.95, 0.62), ha="center", va="top", fontsize=8.5,
            arrowprops={"arrowstyle": "<|-", "color": MUTED, "shrinkA": 1, "shrinkB": 0, "lw": 1},
        )  # fmt: skip
    return figure


def _draw_lines(axes: Axes) -> None:
    half = WIDTH / 2
    fork = 0.45  # where x splits up
    _line(axes, (_X, _MIDDLE), (_TIMES - 0.26, _MIDDLE), arrow=True)
    _line(
        axes, (fork, _MIDDLE), (fork, _TOP), (BOXES["channel_squeeze"][0] - half, _TOP), arrow=True
    )
    _line(axes, (fork, _MIDDLE), (fork, 0.0), (BOXES["spatial_squeeze"][0] - half, 0.0), arrow=True)
    left = BOXES["channel_excite"][0] - half
    _line(axes, (BOXES["channel_squeeze"][0] + half, _TOP), (left, _TOP), arrow=True)
    _line(axes, (_Z, _TOP), (_Z, 1.9), (left, 1.9), arrow=True)
    right = BOXES["channel_excite"][0] + half
    _line(axes, (right, 1.9), (_TIMES, 1.9), (_TIMES, _MIDDLE + 0.26), arrow=True)
    _line(axes, (right, _TOP), (_MEAN, _TOP), (_MEAN, 1.75 + 0.34), arrow=True)
    left = BOXES["refined_squeeze"][0] - half
    right = BOXES["refined_squeeze"][0] + half
    _line(axes, (_TIMES + 0.26, _MIDDLE), (left, _MIDDLE), arrow=True)
    _line(axes, (right, _MIDDLE), (_CAT, _MIDDLE), (_CAT, _JOIN + 0.24))
    _line(axes, (right, 0.0), (_CAT, 0.0), (_CAT, _JOIN - 0.24))
    left, right = BOXES["spatial_excite"][0] - half, BOXES["spatial_excite"][0] + half
    _line(axes, (_CAT + 0.4, _JOIN), (left, _JOIN), arrow=True)
    _line(axes, (right, _JOIN), (_MEAN, _JOIN), (_MEAN, 1.75 - 0.34), arrow=True)
    _line(axes, (_MEAN + 0.34, 1.75), (_SUM - 0.26, 1.75), arrow=True)
    _line(axes, (_SUM + 0.26, 1.75), (_SUM + 0.69, 1.75), arrow=True)
    for x, y in ((fork, _MIDDLE), (fork, _TOP), (_Z, _TOP), (_SUM, 3.55)):
        axes.plot(x, y, "o", color=MUTED, markersize=3, zorder=2)
    # x reaches the product and the sum from above.
    _line(axes, (fork, _TOP), (fork, 3.55), (_SUM + 0.95, 3.55), (_SUM + 0.95, 2.01), arrow=True)
    _line(axes, (_SUM, 3.55), (_SUM, 2.01), arrow=True)
    for x, y, name in (
        (_Z - 0.42, 3.13, "z"), (9.0, 3.13, "channel gate"), (_TIMES + 0.1, 1.45, "m"),
        (_TIMES + 0.45, 1.13, "u"), (11.9, 0.9, "spatial\ngate"), (3.2, 3.62, "x"),
    ):  # fmt: skip
        side = {"spatial\ngate": "right"}.get(name, "left")
        axes.text(x, y, name, fontsize=7.5, color=MUTED, ha=side, va="bottom", style="italic")


def _line(axes: Axes, *points: tuple[float, float], arrow: bool = False) -> None:
    xs, ys = zip(*(points[:-1] if arrow else points), strict=True)
    axes.plot(xs, ys, color=MUTED, linewidth=1, solid_joinstyle="round", zorder=1)
    if arrow:
        axes.annotate(
            "", points[-1], points[-2], zorder=1,
            arrowprops={"arrowstyle": "-|>", "color": MUTED, "shrinkA": 0, "shrinkB": 0, "lw": 1,
                        "mutation_scale": 8},
        )  # fmt: skip


def _draw_operation(axes: Axes, x: float, y: float, edge: str, op: str) -> None:
    colour = CHANNEL if EDGE_KINDS[edge].startswith("channel") else SPATIAL
    corner, shape = (x - WIDTH / 2, y - HEIGHT / 2), "round,pad=0,rounding_size=0.12"
    axes.add_patch(FancyBboxPatch(corner, WIDTH, HEIGHT, boxstyle=shape, fc=PAPER, ec="none"))
    axes.add_patch(
        FancyBboxPatch(
            corner, WIDTH, HEIGHT, boxstyle=shape, facecolor=colour, alpha=0.16, edgecolor="none"
        )
    )
    axes.add_patch(
        FancyBboxPatch(
            corner, WIDTH, HEIGHT, boxstyle=shape, fill=False, edgecolor=colour, linewidth=1.2
        )
    )
    # A name of any length fits.
    size = min(9.5, 9.5 * 12 / max(1, len(op)))
    axes.text(x, y + 0.1, op, ha="center", va="center", fontsize=size, weight="bold")
    axes.text(
        x, y - 0.17, edge.replace("_", " "), ha="center", va="center", fontsize=6.5, color=MUTED
    )


def _draw_circle(axes: Axes, x: float, y: float, sign: str) -> None:
    radius = 0.34 if len(sign) > 1 else 0.26
    axes.add_patch(Circle((x, y), radius, facecolor=PAPER, edgecolor=INK, linewidth=1, zorder=3))
    size = 7.5 if len(sign) > 1 else 12
    axes.text(x, y - 0.01, sign, ha="center", va="center", fontsize=size, zorder=4)


def _draw_join(axes: Axes) -> None:
    corner, shape = (_CAT - 0.4, _JOIN - 0.24), "round,pad=0,rounding_size=0.1"
    axes.add_patch(
        FancyBboxPatch(
            corner, 0.8, 0.48, boxstyle=shape, facecolor=PAPER, edgecolor=INK, linewidth=1, zorder=3
        )
    )
    axes.text(_CAT, _JOIN, "join", ha="center", va="center", fontsize=8, zorder=4)
