"""Pictures of a run for TensorBoard: alpha, and where modules look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

PROBABILITIES = "Blues"
LOOKS = "inferno"
"""Colour maps whose lightness alone tells the values, for eyes that see colours otherwise."""


def pixels_of(figure: Figure) -> NDArray[np.uint8]:
    """Return a figure as uint8 (height, width, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_alpha(
    alpha: Mapping[str, Sequence[float]], choices: Mapping[str, Sequence[str]]
) -> Figure:
    """Draw the probability of every operation, a row an edge; the darker the more probable.

    Args:
        alpha: edge to probabilities.
        choices: edge to the names of its operations.
    """
    widest = max(len(choices[edge]) for edge in alpha)
    figure = Figure(figsize=(1.5 + 1.15 * widest, 0.6 + 0.55 * len(alpha)), layout="constrained")
    axes = figure.subplots()
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
    return figure


def draw_alpha_course(alpha: pd.DataFrame) -> Figure:
    """Draw the probabilities of one search over its samples, a panel an edge.

    Args:
        alpha: rows of `alpha.parquet`.
    """
    edges = list(alpha["variable"].unique())
    lines = -(-len(edges) // 2)
    figure = Figure(figsize=(11, 0.4 + 1.9 * lines), layout="constrained")
    panels = figure.subplots(lines, 2, squeeze=False, sharex=True).flat
    low, high = alpha["probability"].min(), alpha["probability"].max()
    for panel, edge in zip(panels, edges, strict=False):
        rows = alpha[alpha["variable"] == edge]
        table = rows.pivot(index="operation", columns="search_samples", values="probability")
        table = table.loc[rows["operation"].unique()]
        # A cell lasts from the evaluation before to its own.
        times = [0, *table.columns]
        drawn = panel.pcolormesh(
            times, range(len(table) + 1), table, cmap=PROBABILITIES, vmin=low, vmax=high
        )
        panel.set_yticks(np.arange(len(table)) + 0.5, list(table.index), fontsize=8)
        panel.invert_yaxis()
        panel.set_title(edge, fontsize=9, loc="left")
    for panel in figure.axes[len(edges) :]:
        panel.set_axis_off()
    figure.supxlabel("training samples of the search", fontsize=9)
    figure.colorbar(drawn, ax=figure.axes, label="probability", shrink=0.6)
    return figure


def draw_activations(table: pd.DataFrame) -> Figure:
    """Draw Grad-CAM over the images, a row a module, a column an image.

    Args:
        table: rows of `gradcam.parquet`.
    """
    images = table.drop_duplicates("image")
    modules = list(table["module"].unique())
    size = (1.1 + 1.15 * len(images), 0.3 + 1.3 * (1 + len(modules)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1 + len(modules), len(images), squeeze=False)
    for panel in panels.flat:
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_frame_on(False)
    panels[0, 0].set_ylabel("image")
    for column, image in enumerate(images.to_dict("records")):
        panels[0, column].imshow(_pixels(image), **_GREY)
        panels[0, column].set_title(f"class {image['label']}", fontsize=8)
        seen = table[table["image"] == image["image"]].set_index("module")
        for line, module in enumerate(modules, start=1):
            panel = panels[line, column]
            if column == 0:
                panel.set_ylabel(module)
            row = seen.loc[module]
            strength = np.frombuffer(row["cam"], np.uint8).reshape(row["height"], row["width"])
            panel.imshow(_pixels(row), **_GREY)
            panel.imshow(strength, cmap=LOOKS, vmin=0, vmax=255, alpha=0.7 * strength / 255)
            if row["predicted"] != row["label"]:
                panel.set_title(f"taken for {row['predicted']}", fontsize=8)
    return figure


_GREY = {"cmap": "gray", "vmin": 0, "vmax": 255}


def _pixels(row: Mapping[str, object]) -> NDArray[np.uint8]:
    """Return the image, grey so that the colours are those of the heat map: (height, width)."""
    image = np.frombuffer(row["pixels"], np.uint8)  # type: ignore[call-overload]
    return image.reshape(row["height"], row["width"], row["channels"]).mean(2).astype(np.uint8)
