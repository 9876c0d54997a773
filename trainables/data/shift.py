"""Corruptions of images, applied once to a loaded data set.

The kinds and most strengths follow ImageNet-C (Hendrycks and Dietterich, "Benchmarking Neural
Network Robustness to Common Corruptions and Perturbations", ICLR 2019, arXiv:1903.12261). Lengths
are shares of the image's side, so that they suit any size. Unlike in ImageNet-C, every image has
its own strength: a level drawn uniformly between 0 and the severity, so that the best response to
the corruption differs from image to image.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.errors import unknown_name
from trainables.data.dataset import ImageData, LabelledImages
from trainables.data.splits import held_out_test
from trainables.shift_settings import Shift

Corruption = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""Function of images (N, C, H, W) in [0, 1] and levels (N,) in [0, 5] to images of that shape."""

_CHUNK = 4_000_000
"""Number of pixels that are corrupted at a time."""


def _strength(levels: Tensor, *values: float) -> Tensor:
    """Interpolate the strengths of levels 0 to 5, one value per image: (N, 1, 1, 1)."""
    table = torch.tensor(values)
    low = levels.long().clamp(max=len(values) - 2)
    return torch.lerp(table[low], table[low + 1], levels - low)[:, None, None, None]


def noise(images: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise with the same distribution for all pixels and channels."""
    deviation = _strength(levels, 0, 0.08, 0.12, 0.18, 0.26, 0.38)
    return images + deviation * torch.randn(images.shape, generator=generator)


def blur(images: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
    """Blur with a Gaussian whose standard deviation grows to 7% of the shorter side."""
    count, channels, height, width = images.shape
    side = min(height, width)
    deviation = _strength(levels, 0, 0.02, 0.03, 0.04, 0.055, 0.07).flatten() * side
    reach = math.ceil(3 * 0.07 * side)
    offsets = torch.arange(-reach, reach + 1.0)
    weights = torch.exp(-0.5 * (offsets / deviation.clamp(min=1e-3)[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    maps = images.reshape(1, count * channels, height, width)
    for shape in ((-1, 1, len(offsets), 1), (-1, 1, 1, len(offsets))):
        padding = (reach, reach, 0, 0) if shape[3] > 1 else (0, 0, reach, reach)
        padded = F.pad(maps, padding, mode="replicate")
        maps = F.conv2d(padded, weights.reshape(shape), groups=count * channels)
    return maps.reshape(images.shape)


def contrast(images: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
    """Shrink each channel's differences from its mean."""
    mean = images.mean((2, 3), keepdim=True)
    return mean + (images - mean) * _strength(levels, 1, 0.4, 0.3, 0.2, 0.1, 0.05)


def brightness(images: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
    """Add the same value to all pixels."""
    return images + _strength(levels, 0, 0.1, 0.2, 0.3, 0.4, 0.5)


def fog(images: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
    """Add clouds: noise of all wavelengths, its amplitude proportional to the wavelength."""
    count, _, height, width = images.shape
    clouds = torch.zeros(count, 1, height, width)
    cells = 1
    while cells <= max(height, width):
        cells *= 2
        octave = torch.rand(count, 1, min(cells, height), min(cells, width), generator=generator)
        octave = F.interpolate(octave, (height, width), mode="bilinear", align_corners=False)
        clouds += octave / cells
    low, high = clouds.amin((2, 3), keepdim=True), clouds.amax((2, 3), keepdim=True)
    amount = _strength(levels, 0, 1, 1.5, 2, 2.5, 3)
    brightest = images.amax((1, 2, 3), keepdim=True)
    foggy = images + amount * (clouds - low) / (high - low).clamp(min=1e-6)
    return foggy * brightest / (brightest + amount).clamp(min=1e-6)


def pixelation(images: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
    """Average over a coarser grid, down to a quarter of the resolution."""
    height, width = images.shape[2:]
    scale = _strength(levels, 1, 0.6, 0.5, 0.4, 0.3, 0.25).flatten()
    coarse = images.clone()
    rows = (scale * height).round().clamp(min=1).long()
    for row in rows.unique().tolist():
        chosen = rows == row
        size = (row, max(1, round(row * width / height)))
        small = F.adaptive_avg_pool2d(images[chosen], size)
        coarse[chosen] = F.interpolate(small, (height, width), mode="nearest")
    return coarse


def occlusion(images: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
    """Cover a rectangle at a random place with grey, up to 60% of each side."""
    share = _strength(levels, 0, 0.2, 0.3, 0.4, 0.5, 0.6)[:, :, 0]
    place = torch.rand(2, len(images), 1, 1, generator=generator) * (1 - share)
    height, width = images.shape[2:]
    y = (torch.arange(height) + 0.5)[None, None] / height
    x = (torch.arange(width) + 0.5)[None, None] / width
    inside_y, inside_x = ((v > p) & (v < p + share) for v, p in ((y, place[0]), (x, place[1])))
    covered = inside_y[..., None] & inside_x[:, :, None, :]
    return torch.where(covered, torch.full_like(images, 0.5), images)


def clutter(images: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
    """Cover up to half of the image, from a random side, with another image of the set."""
    count, _, height, width = images.shape
    share = _strength(levels, 0, 0.1, 0.2, 0.3, 0.4, 0.5)[..., 0]
    side = torch.randint(4, (count,), generator=generator)[:, None, None]
    others = images[torch.randperm(count, generator=generator)]
    y = ((torch.arange(height) + 0.5) / height)[None, :, None].expand(count, height, width)
    x = ((torch.arange(width) + 0.5) / width)[None, None, :].expand(count, height, width)
    distance = torch.where(side < 2, y, x)
    distance = torch.where(side % 2 == 0, distance, 1 - distance)
    return torch.where((distance < share)[:, None], others, images)


CORRUPTIONS: dict[str, Corruption] = {
    f.__name__: f for f in (noise, blur, contrast, brightness, fog, pixelation, occlusion, clutter)
}
"""Corruptions by name."""


def shift_images(
    images: Tensor, kinds: Sequence[str], severity: float = 5.0, seed: int = 0
) -> Tensor:
    """Corrupt images; the same arguments give the same images.

    Args:
        images: Images, uint8 (N, C, H, W), on the CPU.
        kinds: Names in `CORRUPTIONS`, applied in this order.
        severity: Largest level, above 0 and at most 5; each image has a level of its own for each
            kind, drawn uniformly between 0 and this.
        seed: Seed of all draws.

    Returns:
        The corrupted images, uint8 (N, C, H, W).

    Raises:
        UserError: A kind is unknown.
    """
    for kind in kinds:
        if kind not in CORRUPTIONS:
            raise unknown_name("kind of shift", kind, CORRUPTIONS)
    chunk = max(1, _CHUNK // max(1, images[:1].numel()))
    shifted = images.clone()
    for kind in kinds:
        # One random stream per kind, so that its draws do not depend on the other kinds.
        generator = torch.Generator().manual_seed(seed * 2**31 + zlib.crc32(kind.encode()) // 2)
        for part in shifted.split(chunk):
            levels = severity * torch.rand(len(part), generator=generator)
            corrupted = CORRUPTIONS[kind](part.float() / 255, levels, generator)
            part.copy_((corrupted.clamp(0, 1) * 255).round().to(torch.uint8))
    return shifted


def shift_data(data: ImageData, shift: Shift) -> ImageData:
    """Return the data set with all its images corrupted.

    Test images, official or held out, are corrupted separately from the others, so that none of
    them covers an image that a search reads.
    """

    def shifted(images: Tensor, part: int) -> Tensor:
        return shift_images(images, shift.kinds, shift.severity, 2 * shift.seed + part)

    if data.test is not None:
        test = LabelledImages(shifted(data.test.images, 1), data.test.labels)
        return replace(data, images=shifted(data.images, 0), test=test)
    test_part, pool = held_out_test(data.labels)
    images = torch.empty_like(data.images)
    images[pool] = shifted(data.images[pool], 0)
    images[test_part] = shifted(data.images[test_part], 1)
    return replace(data, images=images)
