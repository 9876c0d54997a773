"""The range of the values of image files that have more than 8 bits, which becomes 0 to 255.

Files of one kind of values share one range, measured on the training part, so that a value is the
same grey in every image. It is the first of these that applies:

1. the range that is given;
2. the usual range: for integers from 0, 0 to the largest number of as many bits (at least 8) as the
   largest value has; for floating point within them, 0 to 1 or -1 to 1; if the values span at
   least a quarter of it;
3. the smallest to the largest value.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from search_spaces.errors import UserError
from trainables.data.notes import counted

COLOUR = "16-bit colour"
"""Kind of the files of which Pillow keeps only the upper 8 bits of each value."""

FLOAT = "floating point"
SHORT, SIGNED_SHORT, SIGNED_BYTE = "16-bit", "signed 16-bit", "signed 8-bit"
LONG, SIGNED_LONG = "unsigned 32-bit", "32-bit"

DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""Errors that Pillow raises for a file that it cannot decode."""

LEAST_SPAN = 1 / 4
"""Share of the usual range that values must span for it to be theirs."""

FLAT = 1 / 16
"""Share of the range below which an image is nearly one grey."""

_BITS, _SAMPLE_FORMAT = 258, 339  # tags of TIFF


class Range(NamedTuple):
    """Values that become 0 and 255."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{_number(self.low)} to {_number(self.high)}"

    @property
    def span(self) -> float:
        """Difference of the two."""
        return self.high - self.low


def kind_of(image: Image.Image) -> str | None:
    """Return the kind of values of an opened file; None if they are 8-bit or palette colours."""
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F":
        return FLOAT
    if image.mode.startswith("I;16"):
        return SHORT
    if image.mode == "I":
        if image.format in (
            "PNG",
            "PPM",
        ):  # Pillow scales the latter by the largest value it states
            return SHORT
        if tags.get(_BITS, (32,))[0] == 16:
            return SIGNED_SHORT
        return LONG if tags.get(_SAMPLE_FORMAT, (2,))[0] == 1 else SIGNED_LONG
    if image.mode == "L" and tags.get(_SAMPLE_FORMAT, (1,))[0] == 2:
        return SIGNED_BYTE
    tiles = getattr(image, "tile", None)
    arguments = tiles[0].args if tiles else ""
    stored = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return COLOUR if isinstance(stored, str) and ";16" in stored else None


def values_of(image: Image.Image, kind: str) -> np.ndarray:
    """Return the values of a loaded image of one channel, floating point (H, W)."""
    stored = np.asarray(image)
    if kind in (LONG, SIGNED_BYTE):  # Pillow has no such types, and keeps the bits
        stored = stored.view({LONG: np.uint32, SIGNED_BYTE: np.int8}[kind])
    return stored.astype(np.float64 if stored.dtype.itemsize > 2 else np.float32)


def read_extent(file: Path) -> tuple[str, Range] | None:
    """Return the kind of values of a file, and the smallest and the largest; None for 8 bits.

    Raises:
        UserError: The file is damaged, or a value is not a number.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
            kind = kind_of(image)
            if kind is None:
                return None
            image.load()
            if kind == COLOUR:
                extent = Range(0, int(np.asarray(image.convert("RGB")).max()))
            else:
                values = values_of(image, kind)
                extent = Range(float(values.min()), float(values.max()))
    except DAMAGED as error:
        raise unreadable(file, error) from error
    if not np.isfinite(extent).all():
        raise UserError(f"image {file} has values that are not numbers: replace or remove it")
    return kind, extent


def unreadable(file: Path, error: Exception) -> UserError:
    """Build the error for an image file that cannot be decoded."""
    if isinstance(error, Image.UnidentifiedImageError):
        return UserError(
            f"image {file} cannot be read (no format that Pillow decodes): mend, convert or remove "
            f"it"
        )
    return UserError(f"image {file} cannot be read ({error}): mend or remove it")


@dataclass
class ValueRanges:
    """Ranges of the values of a tree's files by their kind.

    Attributes:
        ranges: Range of each kind of values in the training part.
        given: Range that the user gives to all kinds, if any.
        extents: Smallest and largest value of each training file, by kind.
        outside: Number of files of each kind with values outside of its range.
    """

    ranges: dict[str, Range]
    given: Range | None = None
    extents: dict[str, list[Range]] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @classmethod
    def of(cls, files: Sequence[Path], given: Range | None = None) -> ValueRanges:
        """Measure the training files; of those with 8 bits, only the header is read.

        Raises:
            UserError: A file is damaged, or the range of a kind cannot be known.
        """
        extents: dict[str, list[Range]] = defaultdict(list)
        examples: dict[str, list[Path]] = defaultdict(list)
        for file in files:
            if (extent := read_extent(file)) is not None:
                extents[extent[0]].append(extent[1])
                examples[extent[0]].append(file)
        ranges = {}
        for kind, measured in extents.items():
            if kind == COLOUR:
                _check_colours(measured, examples[kind][0])
            else:
                ranges[kind] = given or _known_range(kind, measured, examples[kind])
        return cls(ranges, given, dict(extents))

    def greys(self, values: np.ndarray, kind: str, file: Path) -> np.ndarray:
        """Return values as greys, uint8, those outside of the range of their kind cut off.

        Raises:
            UserError: No training file has values of this kind, or one is not a number.
        """
        if self.given:
            self.ranges.setdefault(kind, self.given)
        if kind not in self.ranges:
            raise UserError(
                f"image {file} has {kind} values, and no training image has: their range is not "
                f"known; give it by data.options.value_range=[LOW,HIGH], or convert the file"
            )
        chosen = self.ranges[kind]
        if not np.isfinite(values).all():
            raise UserError(f"image {file} has values that are not numbers: replace or remove it")
        self.outside[kind] += bool(values.min() < chosen.low or values.max() > chosen.high)
        greys = (values - chosen.low) * (255 / chosen.span)
        return np.rint(greys).clip(0, 255).astype(np.uint8)

    def notes(self) -> list[str]:
        """Return one sentence per kind on the range that was used."""
        notes = []
        if colours := self.extents.get(COLOUR):
            notes.append(f"{_values_in(colours, COLOUR)}: 0 to 65,535 became 0 to 255")
        for kind, chosen in self.ranges.items():
            measured = self.extents.get(kind, [])
            text = _values_in(measured, kind)
            text += f", {_whole(measured)}" if measured else ""
            text += f": {chosen} became 0 to 255"
            text += " (data.options.value_range)" if self.given else ""
            if outside := self.outside[kind]:
                text += f"; values outside are cut off in {counted(outside, 'image')}"
            if flat := len(_flat(measured, chosen)):
                text += f"; less than 1/{round(1 / FLAT)} of it is in {counted(flat, 'image')}"
            notes.append(text)
        return notes


def _values_in(measured: Sequence[Range], kind: str) -> str:
    return f"{kind} values in {counted(len(measured), 'training image')}"


def _whole(measured: Sequence[Range]) -> Range:
    return Range(min(r.low for r in measured), max(r.high for r in measured))


def _known_range(kind: str, measured: Sequence[Range], files: Sequence[Path]) -> Range:
    """Return the range of a kind by the rule of this file."""
    whole = _whole(measured)
    if whole.span == 0:
        raise UserError(
            f"the {_values_in(measured, kind)}, such as {files[0]}, are all "
            f"{_number(whole.low)}: their range is not known; replace or remove these files"
        )
    usual = _usual_range(kind, whole)
    chosen = usual if usual and whole.span >= LEAST_SPAN * usual.span else whole
    flat = _flat(measured, chosen)
    if 2 * len(flat) > sum(extent.span > 0 for extent in measured):
        extent = measured[flat[0]]
        raise UserError(
            f"the {_values_in(measured, kind)} have the range {chosen}, but most images, such as "
            f"{files[flat[0]]} ({extent}), use less than 1/{round(1 / FLAT)} of it: their range is "
            f"not known; give it by data.options.value_range=[LOW,HIGH]"
        )
    return chosen


def _usual_range(kind: str, whole: Range) -> Range | None:
    if kind == FLOAT:
        usual = (Range(0, 1), Range(-1, 1))
        return next((r for r in usual if r.low <= whole.low and whole.high <= r.high), None)
    if whole.low < 0:
        return None
    return Range(0, 2 ** max(8, int(whole.high).bit_length()) - 1)


def _flat(measured: Sequence[Range], chosen: Range) -> list[int]:
    """Return which images are nearly one grey, without those that have one value only."""
    return [i for i, extent in enumerate(measured) if 0 < extent.span < FLAT * chosen.span]


def _check_colours(measured: Sequence[Range], file: Path) -> None:
    largest = _whole(measured).high
    if largest < LEAST_SPAN * 255:
        raise UserError(
            f"the {_values_in(measured, COLOUR)}, such as {file}, use less than a quarter of "
            f"their range, and Pillow reads only the upper 8 bits of each: convert them to 8 bits"
        )


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.4g}"
