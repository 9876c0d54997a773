"""One image file as 8-bit colours: upright, without transparency, a square of the wanted size."""

from __future__ import annotations

import struct
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from search_spaces.errors import UserError
from trainables.data.value_ranges import (
    COLOUR,
    DAMAGED,
    ValueRanges,
    kind_of,
    unreadable,
    values_of,
)

TURNED = "turned upright, as the EXIF orientation says"
NO_EXIF = "with damaged EXIF data, so that the orientation is not known"
FLATTENED = "put on white where transparent"
SEVERAL = "with several frames or pages, of which the first is read"

_WITH_FRAMES = {"GIF", "PNG", "WEBP", "TIFF", "AVIF"}
_BAD_EXIF = (SyntaxError, struct.error, TypeError, ValueError, KeyError, IndexError, OSError)
_INVERTED = 0  # in TIFF's tag 262: zero is white


def read_square(file: Path, size: int, ranges: ValueRanges, counts: Counter[str]) -> Tensor:
    """Read an image file: resized by its shorter side, and centre cropped.

    Args:
        file: File, in any format that Pillow decodes.
        size: Side of the square in pixels.
        ranges: Ranges of values that have more than 8 bits.
        counts: Number of images of which each of the phrases above is true.

    Returns:
        The colours, uint8 (3, size, size).

    Raises:
        UserError: The file is damaged, or the range of its values is not known.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
            # A large JPEG is decoded at a fraction of its size, at least twice the requested one.
            image.draft("RGB", (2 * size, 2 * size))
            if image.format in _WITH_FRAMES and getattr(image, "is_animated", False):
                counts[SEVERAL] += 1
            colours = _colours(image, file, ranges, counts)
            shorter = min(colours.size)
            width, height = (max(size, round(side * size / shorter)) for side in colours.size)
            resized = colours.resize((width, height), Image.Resampling.BILINEAR)
    except UserError:
        raise
    except DAMAGED as error:
        raise unreadable(file, error) from error
    left, top = (width - size) // 2, (height - size) // 2
    square = resized.crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def flattened(image: Image.Image) -> Image.Image:
    """Return an image in RGB, with white where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    colours = image.convert("RGBA")
    white = Image.new("RGBA", colours.size, "white")
    return Image.alpha_composite(white, colours).convert("RGB")


def _colours(
    image: Image.Image, file: Path, ranges: ValueRanges, counts: Counter[str]
) -> Image.Image:
    kind = kind_of(image)
    tags = getattr(image, "tag_v2", {})
    orientation = tags.get(ExifTags.Base.Orientation, 1)  # Pillow turns a TIFF when it loads it
    inverted = tags.get(ExifTags.Base.PhotometricInterpretation) == _INVERTED
    image.load()
    upright = _upright(image, orientation, counts)
    if kind is None or kind == COLOUR:
        counts[FLATTENED] += _is_transparent(upright)
        return flattened(upright)
    values = values_of(upright, kind)
    greys = ranges.greys(values, kind, file)
    if inverted:
        greys = 255 - greys
    transparent = upright.info.get("transparency")
    if isinstance(transparent, int) and (values == transparent).any():
        counts[FLATTENED] += 1
        greys[values == transparent] = 255
    return Image.fromarray(greys).convert("RGB")


def _upright(image: Image.Image, turned_from: int, counts: Counter[str]) -> Image.Image:
    """Return a loaded image turned as its EXIF orientation says, if Pillow has not done it."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, turned_from)
        upright = ImageOps.exif_transpose(image)
    except _BAD_EXIF:
        counts[NO_EXIF] += 1
        return image
    counts[TURNED] += orientation in range(2, 9)
    return upright


def _is_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    return lowest < 255  # type: ignore[operator]
