"""Augmentation and normalisation of whole batches, on the device that holds them.

Each random function draws only from the generator that it is given, so a batch is reproduced by
the generator's state. The generator is on the device of the images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """Changes of a training image that keep its class.

    Attributes:
        padding: Zero pixels put around the image before a crop of the old size; 0 is no crop.
        flip: Whether half of the images are mirrored left to right.
        cutout: Side of a square set to the mean, in pixels; 0 is none (DeVries and Taylor, 2017).
    """

    padding: int = 0
    flip: bool = False
    cutout: int = 0


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel, with pixel values scaled to 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: Tensor) -> Normalisation:
        """Measure uint8 images (N, C, H, W); a channel that never varies gets a deviation of 1."""
        levels = torch.arange(256, dtype=torch.float64) / 255
        mean, std = [], []
        for channel in images.unbind(1):
            # Counting the 256 levels is exact and needs no copy of the images as floats.
            counts = torch.bincount(channel.flatten(), minlength=256).cpu()
            share = counts.double() / channel.numel()
            centre = (share * levels).sum()
            deviation = (share * (levels - centre) ** 2).sum().sqrt().item()
            mean.append(centre.item())
            std.append(deviation if deviation > 1e-6 else 1.0)
        return cls(tuple(mean), tuple(std))


def normalise(
    images: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Turn uint8 images (B, C, H, W) into (x / 255 - mean) / std of the given type.

    `mean` and `std` are float32 (C,), in units of 0 to 1, on the device of the images. The
    arithmetic is float32 whatever the type of the result.
    """
    scale = (1 / (255 * std)).view(-1, 1, 1)
    shift = (mean / std).view(-1, 1, 1)
    return (images * scale - shift).to(dtype)


def crop(images: Tensor, padding: int, tops: Tensor, lefts: Tensor) -> Tensor:
    """Cut (H, W) windows out of images (B, C, H, W) padded with zeros.

    Args:
        images: Images of any type, (B, C, H, W).
        padding: Zeros on each of the four sides, in pixels.
        tops: First row of each image's window in the padded image, 0 to 2 * padding, (B,).
        lefts: First column of each image's window, 0 to 2 * padding, (B,).
    """
    height, width = images.shape[-2:]
    windows = F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, tops, lefts]


def cut_out(images: Tensor, size: int, rows: Tensor, columns: Tensor) -> Tensor:
    """Set a square of `size` pixels to zero in each image; it is clipped at the border.

    Args:
        images: Images of any type, (B, C, H, W).
        size: Side of the square, in pixels.
        rows: Row of each square's centre, (B,); the square begins at row - size // 2.
        columns: Column of each centre, (B,); the square begins at column - size // 2.
    """
    hidden = _span(rows, size, images.shape[2])[:, :, None]
    hidden = hidden & _span(columns, size, images.shape[3])[:, None, :]
    return images.masked_fill(hidden[:, None], 0)


def _span(centres: Tensor, size: int, length: int) -> Tensor:
    """Mark the `size` positions about each centre along an axis: bool (B, length)."""
    offset = torch.arange(length, device=centres.device) - (centres[:, None] - size // 2)
    return (offset >= 0) & (offset < size)


def random_crop(images: Tensor, padding: int, generator: Generator) -> Tensor:
    """Shift each image of (B, C, H, W) by up to `padding` pixels on both axes; fill with zeros."""
    tops, lefts = _draw(2 * padding + 1, (2, len(images)), generator)
    return crop(images, padding, tops, lefts)


def random_flip(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image of (B, C, H, W) left to right with probability one half."""
    flipped = _draw(2, (len(images), 1, 1, 1), generator).bool()
    return torch.where(flipped, images.flip(3), images)


def random_cutout(images: Tensor, size: int, generator: Generator) -> Tensor:
    """Set one square of each image of (B, C, H, W) to zero, centred anywhere in the image."""
    rows = _draw(images.shape[2], (len(images),), generator)
    columns = _draw(images.shape[3], (len(images),), generator)
    return cut_out(images, size, rows, columns)


def _draw(below: int, shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.randint(below, shape, generator=generator, device=generator.device)
