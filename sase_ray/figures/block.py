"""Figure of the attention block of a genotype: the drawing in plain text, set as graphics."""

from __future__ import annotations

import re
from itertools import zip_longest

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from sase_ray.figures.block_text import draw
from sase_ray.figures.style import HUES, INK, MUTED, PAPER, attempted, new_figure
from search_spaces.genotype import EDGE_KINDS, Genotype

CHANNEL, SPATIAL = HUES[0], HUES[1]
WIDTH, HEIGHT = 0.085, 0.42
"""Width and height of a character's cell, in inches."""
LEAST = 11
"""Minimum width of an operation's box, in characters: it also holds the name of the edge."""

_ENDS = {
    "─": "lr", "│": "ud", "┬": "lrd", "├": "urd", "┐": "ld", "└": "ur", "┘": "lu", "◀": "lr",
}  # fmt: skip
_TEXT = re.compile(r"[^\s─│┬├┐└┘]+(?: [^\s─│┬├┐└┘]+)*")
"""Pattern of a text between the lines, of one or several words."""
_TOWARDS = {"l": (-0.5, 0.0), "r": (0.5, 0.0), "u": (0.0, -0.5), "d": (0.0, 0.5)}
_ROWS = (
    ("channel_squeeze", "channel_excite"), ("refine_excite",), (), ("refined_squeeze",),
    ("spatial_excite",), ("spatial_squeeze",),
)  # fmt: skip
"""Edges in the order in which each line of the text names their operations."""


@attempted("block")
def draw_block(genotype: Genotype | str) -> Figure | None:
    """Draw the block of a genotype, or the blocks of its stages one below the other.

    Channel operations are blue, spatial ones orange.

    Raises:
        UserError: It is not a genotype.
    """
    genotype = Genotype.parse(genotype)
    blocks = [draw(genotype.stage(stage), LEAST).splitlines() for stage in range(genotype.stages)]
    columns = max(len(line) for lines in blocks for line in lines)
    rows = sum(map(len, blocks)) + len(blocks)
    figure = new_figure(WIDTH * (columns + 2), HEIGHT * (rows - 0.5))
    axes = figure.add_subplot()
    axes.set(xlim=(-1.5, columns + 0.5), ylim=(rows - 1.5, -1))
    axes.axis("off")
    row = 0
    for stage, lines in enumerate(blocks):
        if len(blocks) > 1:
            axes.text(-0.5, row - 0.7, f"stage {stage}", fontsize=7.5, color=MUTED)
        for line, edges in zip_longest(lines, _ROWS, fillvalue=()):
            _draw_line(axes, row, str(line), edges)
            row += 1
        row += 1
    return figure


def _draw_line(axes: Axes, row: int, line: str, edges: tuple[str, ...]) -> None:
    for column, character in enumerate(line):
        for end in _ENDS.get(character, ""):
            across, down = _TOWARDS[end]
            axes.plot(
                [column, column + across],
                [row, row + down],
                color=MUTED,
                lw=1,
                solid_capstyle="projecting",
                zorder=1,
            )
    operations = re.finditer(r"\[([^\]]*)\]", line)
    for edge, match in zip(edges, operations, strict=True):
        _draw_operation(axes, row, match, edge)
    for match in _TEXT.finditer(re.sub(r"\[.*?\]", lambda op: " " * len(op[0]), line)):
        centre = (match.start() + match.end() - 1) / 2
        axes.text(centre, row, match[0], ha="center", va="center", fontsize=8.5, color=INK)


def _draw_operation(axes: Axes, row: int, match: re.Match[str], edge: str) -> None:
    colour = CHANNEL if EDGE_KINDS[edge].startswith("channel") else SPATIAL
    start, width = match.start() - 0.5, match.end() - match.start()
    for fill, alpha in ((PAPER, 1.0), (colour, 0.16)):
        axes.add_patch(
            FancyBboxPatch(
                (start, row - 0.42), width, 0.84, boxstyle="round,pad=0,rounding_size=0.3",
                mutation_aspect=WIDTH / HEIGHT, facecolor=fill, alpha=alpha,
                edgecolor=colour, linewidth=1.2, zorder=2,
            )
        )  # fmt: skip
    centre = start + width / 2
    axes.text(
        centre, row - 0.1, match[1].strip(), ha="center", va="center", fontsize=8, weight="bold"
    )
    name = edge.replace("_", " ")
    axes.text(centre, row + 0.25, name, ha="center", va="center", fontsize=6, color=MUTED)
