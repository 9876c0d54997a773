"""ImageNet-style trees of image files, decoded once into one tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor

from search_spaces.errors import UserError
from trainables.data.augment import Augmentation
from trainables.data.dataset import LabelledImages, RawData
from trainables.data.registry import missing_set, register_dataset

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@register_dataset(
    "imagefolder",
    source="a folder of yours: train/<class>/<image>, and test/ or val/ likewise",
    summary="any ImageNet-style tree, resized to image_size (default 64), colour",
    augmentation=Augmentation(padding=4, flip=True),
)
def imagefolder(root: Path | None, image_size: int = 64) -> RawData:
    """Load the tree under `root`, (N, 3, image_size, image_size).

    The classes are the folders in `root/train`, in alphabetical order. The test part is
    `root/test`, or else `root/val`: the first of them that has class folders. Without one, the
    splits hold out a part of the training images.

    Args:
        root: Root folder of the tree.
        image_size: Side of the squares to which images are resized (shorter side) and cropped
            (centre), in pixels.

    Raises:
        UserError: There is no tree, a class is empty or unknown, an image is damaged, or the
            images would not fit into memory.
    """
    if image_size < 1:
        raise UserError(f"image_size must be at least 1 pixel (got {image_size})")
    if root is None or not (root / "train").is_dir():
        raise missing_set(
            "imagefolder",
            [root / "train"] if root else [],
            "give a folder with train/<class>/<image> as root or in $SASE_DATA",
        )
    classes = _class_folders(root / "train")
    if len(classes) < 2:
        raise UserError(
            f"{root / 'train'} has {len(classes)} class folders, expected at least 2: "
            f"put the images of each class into a folder of its own"
        )
    train = _list_files(root / "train", classes)
    held_out = next((p for p in (root / "test", root / "val") if _class_folders(p)), None)
    test = _list_files(held_out, classes) if held_out else []
    _check_memory(root, len(train) + len(test), image_size)
    return RawData(
        *_decode_all(train, image_size),
        class_names=tuple(classes),
        test=LabelledImages(*_decode_all(test, image_size)) if test else None,
    )


def _class_folders(part: Path) -> list[str]:
    if not part.is_dir():
        return []
    return sorted(f.name for f in part.iterdir() if f.is_dir() and not f.name.startswith("."))


def _list_files(part: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """List the image files below each class folder of a part, with their labels."""
    files: list[tuple[Path, int]] = []
    labels = {name: label for label, name in enumerate(classes)}
    for name in _class_folders(part):
        if name not in labels:
            raise UserError(
                f"{part / name} is not a class of the training part: rename or remove it "
                f"(the classes are {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''})"
            )
        found = sorted(f for f in (part / name).rglob("*") if f.suffix.lower() in SUFFIXES)
        if not found:
            raise UserError(
                f"{part / name} has no images: fill or remove it (read are {', '.join(SUFFIXES)})"
            )
        files += [(file, labels[name]) for file in found]
    return files


def _decode_all(files: list[tuple[Path, int]], size: int) -> tuple[Tensor, Tensor]:
    images = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    for image, (file, _) in zip(images, files, strict=True):
        image.copy_(_decode(file, size))
    return images, torch.tensor([label for _, label in files], dtype=torch.int64)


def _decode(file: Path, size: int) -> Tensor:
    """Read an image file as uint8 (3, size, size): resized by its shorter side, centre cropped."""
    try:
        with Image.open(file) as image:
            # A large JPEG is decoded at a fraction of its size, at least twice the requested one.
            image.draft("RGB", (2 * size, 2 * size))
            shorter = min(image.size)
            width, height = (max(size, round(side * size / shorter)) for side in image.size)
            resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"image {file} cannot be read ({error}): mend or remove it") from error
    left, top = (width - size) // 2, (height - size) // 2
    square = resized.crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


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
