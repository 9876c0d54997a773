"""Images of one's own in one file of numpy arrays."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from search_spaces.errors import UserError, shorten
from trainables.data.dataset import LabelledImages, RawData
from trainables.data.registry import missing_set, register_dataset


@register_dataset(
    "arrays",
    source="a file of yours: images, labels, and optionally test_images, test_labels, class_names",
    summary="any .npz file of uint8 images (N, C, H, W) and their classes from 0",
)
def arrays(root: Path | None, file: str = "images.npz") -> RawData:
    """Load `file` in the folder `root`, as `np.savez` writes it.

    Without `test_images`, the splits hold out a part of the images; without `class_names`, classes
    are called by their numbers. Nothing in the file is run.

    Args:
        root: Folder of the file.
        file: Name of the file.

    Raises:
        UserError: There is no such file, or it does not hold these arrays.
    """
    path = None if root is None else root / file
    if path is None or not path.is_file():
        raise missing_set(
            "arrays",
            [path] if path else [],
            "give a folder with that file, which np.savez writes, as root or in $SASE_DATA",
        )
    try:
        with np.load(path, allow_pickle=False) as content:
            part = {name: content[name] for name in content.files}
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no .npz file of arrays ({shorten(str(error))})") from None
    return read_arrays(part, str(path))


def read_arrays(content: dict[str, Any], where: str) -> RawData:
    """Return the data set that the arrays of a file hold.

    Raises:
        UserError: An array is missing, or of another type or shape.
    """
    for name in ("images", "labels", *(("test_labels",) if "test_images" in content else ())):
        if name not in content:
            raise UserError(f"{where} has no array {name!r}, but {', '.join(content) or 'none'}")
    images, labels = _part(content, "", where)
    test = LabelledImages(*_part(content, "test_", where)) if "test_images" in content else None
    names = content.get("class_names")
    if names is None:
        every = labels if test is None else torch.cat([labels, test.labels])
        names = range(1 + max(every.tolist(), default=0))
    return RawData(images, labels, tuple(str(name) for name in names), test)


def _part(content: dict[str, Any], prefix: str, where: str) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = content[f"{prefix}images"], content[f"{prefix}labels"]
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(
            f"{where}: {prefix}images must be uint8 (N, C, H, W), not {images.dtype} {images.shape}"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise UserError(
            f"{where}: {prefix}labels must be whole numbers ({len(images)},), one for each image, "
            f"not {labels.dtype} {labels.shape}"
        )
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
