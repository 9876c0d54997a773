"""Pictures for TensorBoard: figures as pixels, and alpha as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sase_ray.figures.style import attempted, new_figure

PROBABILITIES = "Blues"
"""Name of a colour map whose lightness shows the values, so that colour-blind readers see them."""


@attempted("pixels")
def pixels_of(figure: Figure | None) -> NDArray[np.uint8] | None:
    """Return a figure as uint8 (height, width, 3); None if it cannot be drawn."""
    if figure is None:
        return None
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@attempted("probabilities of operations")
def draw_alpha(
    alpha: Mapping[str, Sequence[float]], choices: Mapping[str, Sequence[str]]
) -> Figure | None:
    """Draw the probability of every operation, one row per edge; the darker the more probable.

    Args:
        alpha: Probabilities of each edge's operations.
        choices: Names of each edge's operations.
    """
    widest = max(len(choices[edge]) for edge in alpha)
    figure = new_figure(1.5 + 1.15 * widest, 0.6 + 0.55 * len(alpha))
    axes = figure.add_subplot()
    shares = [share for probabilities in alpha.values() for share in probabilities]
    low, high = min(shares), max(shares)
    table = np.full((len(alpha), widest), np.nan)
    for row, (edge, probabilities) in enumerate(alpha.items()):
        table[row, : len(probabilities)] = probabilities
        for column, (op, share) in enumerate(zip(choices[edge], probabilities, strict=True)):
            colour = "white" if share - low > 0.6 * (high - low) else "black"
            text = f"{op}\n{share:.3f}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.imshow(table, cmap=PROBABILITIES, vmin=low, vmax=high, aspect="auto")
    axes.set_yticks(range(len(alpha)), list(alpha))
    axes.set_xticks([])
    axes.set_frame_on(False)
    axes.grid(visible=False)
    return figure
