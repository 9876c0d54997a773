"""Stripes of four directions in noise, made up by a seed."""

from __future__ import annotations

from pathlib import Path

import torch

from trainables.data.dataset import RawData
from trainables.data.registry import register_dataset

DIRECTIONS = ("horizontal", "vertical", "falling", "rising")


@register_dataset(
    "stripes",
    source="made up, no paper",
    summary="stripes of four directions in noise, 8x8, grey; option count",
)
def stripes(root: Path | None, count: int = 600) -> RawData:
    """Make `count` images, uint8 (count, 1, 8, 8), of the classes 0 to 3; `root` is not read."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % len(DIRECTIONS)
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    phases = torch.stack([rows, columns, rows - columns, rows + columns])
    shift = torch.randint(4, (count, 1, 1), generator=generator)
    bright = ((phases[labels] + shift) % 4 < 2).float()
    noise = torch.randn(count, 8, 8, generator=generator)
    images = (128 + 60 * (2 * bright - 1) + 40 * noise).clamp(0, 255).to(torch.uint8)
    return RawData(images.unsqueeze(1), labels, DIRECTIONS)
