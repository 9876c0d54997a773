"""Grad-CAM panels of several modules on the same test images.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017. The maps are read from the run and only drawn here.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sase_ray.analysis.outcomes import winner_of
from sase_ray.figures.style import HUES, MUTED, attempted, label_of, new_figure
from sase_ray.results.load import Run
from search_spaces.errors import UserError

BASELINES = ("none", "se", "cbam")
MOST_IMAGES = 6
LARGEST = 1024
"""Maximum height and width of an image, in pixels."""


def gradcam_figure(run: Run) -> Figure | None:
    """Draw none, SE, CBAM and the winner side by side on the same images.

    Maps are drawn over the grey image, from dark (no influence) to bright; below is the network's
    prediction, orange if it is wrong.

    Raises:
        UserError: An image or a map does not have the size that its row names.
    """
    table = run.gradcam
    if table.empty:
        return None
    winner = winner_of(run)
    known = list(dict.fromkeys(table["module"]))
    wanted = [*BASELINES, *([winner.row["name"]] if winner else [])]
    modules = [name for name in wanted if name in known] or known[:4]
    shown = table[table["module"].isin(modules)].drop_duplicates(["module", "image"])
    full = shown.groupby("image")["module"].size() == len(modules)
    images = full[full].index[:MOST_IMAGES]
    if not len(images):
        return None
    return draw_activations(shown, modules, list(images))


@attempted("Grad-CAM")
def draw_activations(
    table: pd.DataFrame, modules: Sequence[str], images: Sequence[int]
) -> Figure | None:
    """Draw the maps of modules over test images, one row per image.

    Args:
        table: Rows of `gradcam`, one for each of these modules and images.
        modules: Names of strategies or baselines.
        images: Indices of test images.

    Raises:
        UserError: An image or a map does not have the size that its row names.
    """
    cells = table.set_index(["image", "module"])
    columns = 1 + len(modules)
    figure = new_figure(5.0, 0.3 + 5.0 / columns * len(images))
    grid = figure.subplots(len(images), columns, squeeze=False)
    for row, image in enumerate(images):
        first = cells.loc[(image, modules[0])]
        grid[row, 0].imshow(_pixels(first), interpolation="none")
        grid[row, 0].set_ylabel(f"class {first['label']}", fontsize=7.5)
        for column, module in enumerate(modules, start=1):
            cell = cells.loc[(image, module)]
            axes = grid[row, column]
            axes.imshow(overlay(cell), interpolation="none")
            wrong = cell["predicted"] != cell["label"]
            axes.set_xlabel(
                f"class {cell['predicted']}", fontsize=7, labelpad=2,
                color=HUES[1] if wrong else MUTED,
            )  # fmt: skip
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
    for axes, name in zip(grid[0], ["image", *modules], strict=True):
        axes.set_title(label_of(name)[:14], fontsize=8.5, loc="center")
    return figure


def overlay(cell: pd.Series) -> NDArray[np.uint8]:
    """Draw a map over its grey image, and return the pixels (H, W, 3).

    Args:
        cell: Row of the table `gradcam`.

    Raises:
        UserError: As for `gradcam_figure`.
    """
    height, width = cell["height"], cell["width"]
    weight = _unpack(cell["cam"], (height, width)).astype(float) / 255
    grey = _pixels(cell).astype(float).mean(axis=2, keepdims=True)
    colour = 255 * mpl.colormaps["inferno"](weight)[..., :3]
    return np.clip(0.4 * grey + 0.6 * colour, 0, 255).astype(np.uint8)


def _pixels(cell: pd.Series) -> NDArray[np.uint8]:
    """Return an image as (H, W, 3)."""
    channels = cell["channels"]
    if channels not in (1, 3):
        raise UserError(f"gradcam.parquet: an image has {channels} channels, expected 1 or 3")
    pixels = _unpack(cell["pixels"], (cell["height"], cell["width"], channels))
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _unpack(data: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if not all(1 <= size <= LARGEST for size in shape) or len(data) != np.prod(shape):
        told = " x ".join(str(size) for size in shape)
        raise UserError(
            f"gradcam.parquet: {len(data):,} bytes are no picture of {told} (at most {LARGEST:,} "
            f"a side)"
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
