"""Adaptive average pooling that every exporter takes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pool_row(x: Tensor, cells: int) -> Tensor:
    """Return adaptive average pooling of the last axis, (B, C, N) to (B, C, cells)."""
    if torch.onnx.is_in_onnx_export():
        return x @ _shares(x, cells, x.shape[-1])
    return F.adaptive_avg_pool1d(x, cells)


def pool_map(x: Tensor, height: int, width: int) -> Tensor:
    """Return adaptive average pooling of (B, C, H, W) to (B, C, height, width)."""
    # ONNX has no such operator: the older exporter takes only sizes that divide the map's.
    if torch.onnx.is_in_onnx_export():
        columns = (x @ _shares(x, width, x.shape[3])).transpose(2, 3)
        return (columns @ _shares(x, height, x.shape[2])).transpose(2, 3)
    return F.adaptive_avg_pool2d(x, (height, width))


def _shares(like: Tensor, cells: int, positions: int) -> Tensor:
    """Return the share of each position in each cell's mean, (positions, cells)."""
    cell = like.new_ones((cells,), dtype=torch.long).cumsum(0) - 1
    position = like.new_ones((positions,), dtype=torch.long).cumsum(0).unsqueeze(1) - 1
    start = cell * positions // cells
    end = ((cell + 1) * positions + cells - 1) // cells
    inside = (position >= start) & (position < end)
    return inside.to(like.dtype) / (end - start)
