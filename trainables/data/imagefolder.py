"""ImageNet-style trees of image files, decoded once into one tensor."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import psutil
import torch
from torch import Tensor

from search_spaces.errors import UserError
from trainables.data.augment import Augmentation
from trainables.data.dataset import LabelledImages, RawData
from trainables.data.image_file import read_square
from trainables.data.image_tree import LeftOut, class_folders, image_files
from trainables.data.notes import counted
from trainables.data.registry import missing_set, register_dataset
from trainables.data.value_ranges import Range, ValueRanges

FEW_GREYS = 64
"""Number of greys of all training pixels below which a note says so."""


@register_dataset(
    "imagefolder",
    source="a folder of yours: train/<class>/<image>, and test/ or val/ likewise",
    summary="any ImageNet-style tree, resized to image_size (default 64), colour",
    augmentation=Augmentation(padding=4, flip=True),
)
def imagefolder(
    root: Path | None, image_size: int = 64, value_range: list[float] | None = None
) -> RawData:
    """Load the tree under `root`, (N, 3, image_size, image_size).

    The classes are the folders in `root/train`, in alphabetical order. The test part is
    `root/test`, or else `root/val`: the first of them that has class folders. Without one, the
    splits hold out a part of the training images. The notes of the result say what was left out,
    and how values, transparency and orientation were read.

    Args:
        root: Root folder of the tree.
        image_size: Side of the squares to which images are resized (shorter side) and cropped
            (centre), in pixels.
        value_range: Values that become 0 and 255 in files with more than 8 bits per value; the
            default follows from the training files, see `value_ranges`.

    Raises:
        UserError: There is no tree, a class is empty or unknown, an image is damaged, the range of
            its values cannot be known, or the images would not fit into memory.
    """
    if image_size < 1:
        raise UserError(f"image_size must be at least 1 pixel (got {image_size})")
    given = _checked(value_range)
    if root is None or not (root / "train").is_dir():
        raise missing_set(
            "imagefolder",
            [root / "train"] if root else [],
            "give a folder with train/<class>/<image> as root or in $SASE_DATA",
        )
    left_out = LeftOut()
    classes = class_folders(root / "train", left_out)
    if len(classes) < 2:
        raise UserError(
            f"{root / 'train'} has {len(classes)} class folders, expected at least 2: "
            f"put the images of each class into a folder of its own"
        )
    train = _list_files(root / "train", classes, classes, left_out)
    held_out = next((p for p in ("test", "val") if class_folders(root / p, LeftOut())), None)
    test: list[tuple[Path, int]] = []
    if held_out is not None:
        names = class_folders(root / held_out, left_out)
        test = _list_files(root / held_out, names, classes, left_out)
    _check_memory(root, len(train) + len(test), image_size)
    ranges = ValueRanges.of([file for file, _ in train], given)
    counts: Counter[str] = Counter()
    images, labels = _decode_all(train, image_size, ranges, counts)
    tested = LabelledImages(*_decode_all(test, image_size, ranges, counts)) if test else None
    notes = [left_out.sentence(), _on_folders(root, held_out), *ranges.notes(), _on_greys(images)]
    notes += [f"{counted(count, 'image')} {what}" for what, count in counts.items() if count]
    return RawData(
        images,
        labels,
        class_names=tuple(classes),
        test=tested,
        notes=tuple(note for note in notes if note),
    )


def _checked(value_range: list[float] | None) -> Range | None:
    if value_range is None:
        return None
    if len(value_range) != 2 or not all(map(math.isfinite, value_range)):
        raise UserError(f"value_range must be two numbers [low, high] (got {value_range})")
    low, high = value_range
    if not low < high:
        raise UserError(f"value_range must go from a lower to a higher number (got {value_range})")
    return Range(low, high)


def _list_files(
    part: Path, names: list[str], classes: list[str], left_out: LeftOut
) -> list[tuple[Path, int]]:
    """List the image files below each class folder of a part, with their labels."""
    files: list[tuple[Path, int]] = []
    labels = {name: label for label, name in enumerate(classes)}
    for name in names:
        if name not in labels:
            raise UserError(
                f"{part / name} is not a class of the training part: rename or remove it "
                f"(the classes are {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''})"
            )
        own = LeftOut()
        images = image_files(part / name, own)
        if not images:
            why = own.sentence() or "it is empty"
            raise UserError(f"{part / name} has no images ({why}): fill or remove it")
        left_out.add(own)
        files += [(file, labels[name]) for file in images]
    return files


def _decode_all(
    files: list[tuple[Path, int]], size: int, ranges: ValueRanges, counts: Counter[str]
) -> tuple[Tensor, Tensor]:
    images = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    for image, (file, _) in zip(images, files, strict=True):
        image.copy_(read_square(file, size, ranges, counts))
    return images, torch.tensor([label for _, label in files], dtype=torch.int64)


def _on_folders(root: Path, held_out: str | None) -> str | None:
    """Return a sentence on the folders beside the parts, or None if there are none."""
    others = [name for name in class_folders(root, LeftOut()) if name not in ("train", held_out)]
    return f"folders that are not read: {', '.join(others)}" if others else None


def _on_greys(images: Tensor) -> str | None:
    """Return a sentence on images of few greys, such as masks of 0 and 1.

    Raises:
        UserError: All pixels are the same.
    """
    low, high = int(images.min()), int(images.max())
    if low == high:
        raise UserError(
            f"all pixels of all training images are {low} of 0 to 255: there is nothing to learn"
        )
    if high - low >= FEW_GREYS:
        return None
    return f"all training pixels are between {low} and {high} of 0 to 255"


def _check_memory(root: Path, count: int, size: int) -> None:
    """Check that the tensor fits in memory, and the copy that is made when it is split."""
    needed, available = 2 * count * 3 * size * size, available_memory()
    if needed > available:
        raise UserError(
            f"the {count} images of {root} need {needed / 2**30:.1f} GiB of memory at image_size "
            f"{size}, but {available / 2**30:.1f} GiB are available: choose a smaller image_size "
            f"or fewer images"
        )


def available_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that machine and container still allow this process to use."""
    free: int = psutil.virtual_memory().available
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        # Files that were read stay in memory only as long as the space is not needed.
        statistics = dict(map(str.split, (cgroup / "memory.stat").read_text().splitlines()))
        cached = int(statistics["inactive_file"])
    except (OSError, KeyError, ValueError):  # no container, or its limit is "max"
        return free
    return min(free, limit - used + cached)
