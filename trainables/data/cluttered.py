"""Cluttered Fashion-MNIST: a small object somewhere among clutter, in channels of unequal noise.

Made from Fashion-MNIST after the cluttered MNIST of Mnih et al., "Recurrent Models of Visual
Attention", NeurIPS 2014, section 4.1, so that attention is useful: along space, to find the
object; along channels, to find the one that shows it best, which differs from image to image.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.errors import UserError
from trainables.data.augment import Augmentation
from trainables.data.dataset import LabelledImages, RawData
from trainables.data.fashion_mnist import fashion_mnist
from trainables.data.registry import register_dataset

SIZE = 28
OBJECT = 14
PIECE = 6
PIECES = 8
NOISE = (0.05, 0.6)
_CHUNK = 5_000


@register_dataset(
    "cluttered_fashion_mnist",
    source="made from Fashion-MNIST, after Mnih et al. 2014, section 4.1 (arXiv:1406.6247)",
    summary="60,000 + 10,000 small clothes among clutter, 28x28, 3 channels of unequal noise",
    augmentation=Augmentation(),
)
def cluttered_fashion_mnist(root: Path | None, seed: int = 0, download: bool = False) -> RawData:
    """Create the set from Fashion-MNIST: (60000, 3, 28, 28) and a test part of 10,000.

    Each image is the object at half its size (14x14) at a random place, over 8 pieces of 6x6
    pixels cut from other images at random places. It is then copied to three channels, each with
    Gaussian noise of its own standard deviation, drawn for that image between 0.05 and 0.6 of the
    range of brightness.

    Args:
        root: Folder to search, as in `fashion_mnist`.
        seed: Seed of the draws.
        download: Whether to download, as in `fashion_mnist`.

    Raises:
        UserError: As in `fashion_mnist`, or the seed is not a whole number of 0 or more.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UserError(f"option seed of cluttered_fashion_mnist is 0, 1, 2, ..., not {seed!r}")
    plain = fashion_mnist(root, download)
    assert plain.test is not None
    generator = torch.Generator().manual_seed(seed)
    train, test = (
        LabelledImages(clutter(part.images, generator), part.labels)
        for part in (LabelledImages(plain.images, plain.labels), plain.test)
    )
    return RawData(train.images, train.labels, plain.class_names, test)


def clutter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Put grey images, uint8 (N, 1, 28, 28), among clutter: uint8 (N, 3, 28, 28)."""
    return torch.cat([_clutter(part, images, generator) for part in images.split(_CHUNK)])


def _clutter(images: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    count = len(images)

    def draw(high: int) -> Tensor:
        return torch.randint(high, (count,), generator=generator)

    canvas = torch.zeros(count, SIZE, SIZE)
    for _ in range(PIECES):
        pieces = others[draw(len(others)), 0]
        piece = _windows(pieces, draw(SIZE - PIECE + 1), draw(SIZE - PIECE + 1), PIECE)
        _put(canvas, piece / 255.0, draw(SIZE - PIECE + 1), draw(SIZE - PIECE + 1))
    small = F.avg_pool2d(images.float() / 255.0, SIZE // OBJECT)[:, 0]
    _put(canvas, small, draw(SIZE - OBJECT + 1), draw(SIZE - OBJECT + 1))
    low, high = NOISE
    spread = low + (high - low) * torch.rand(count, 3, 1, 1, generator=generator)
    noise = torch.randn(count, 3, SIZE, SIZE, generator=generator) * spread
    return ((canvas[:, None] + noise).clamp(0, 1) * 255).round().to(torch.uint8)


def _grid(count: int, top: Tensor, left: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the indices of the pixels of one window per image."""
    steps = torch.arange(size)
    return (
        torch.arange(count)[:, None, None],
        (top[:, None] + steps)[:, :, None],
        (left[:, None] + steps)[:, None, :],
    )


def _windows(images: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    return images[_grid(len(images), top, left, size)]


def _put(canvas: Tensor, patches: Tensor, top: Tensor, left: Tensor) -> None:
    """Draw patches over the canvas where they are brighter."""
    place = _grid(len(canvas), top, left, patches.shape[-1])
    canvas[place] = torch.maximum(canvas[place], patches)
