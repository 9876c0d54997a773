"""Loading a data set of the catalogue into memory."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError, validate_call

from search_spaces.errors import UserError, shorten, unknown_name
from search_spaces.user_paths import user_path
from trainables.data.augment import Augmentation
from trainables.data.dataset import ImageData
from trainables.data.registry import DATASETS, Dataset


def load_dataset(name: str, root: str | Path | None = None, **options: Any) -> ImageData:
    """Load a data set into memory.

    Args:
        name: Registered name of the data set.
        root: Folder to search; the default is the folder that $SASE_DATA names, if set.
        options: Other arguments of the set's loader, such as ``download`` or ``image_size``.

    Raises:
        UserError: The name or an option is unknown, the set is missing, or its files are damaged.
    """
    row = DATASETS.find(name)
    _check_options(row, options)
    root = root or os.environ.get("SASE_DATA")
    folder = user_path(root) if root else None
    if folder and not os.path.isdir(folder):
        raise UserError(f"there is no folder {root} for data set {name!r}")
    try:
        raw = validate_call(config=ConfigDict(strict=True))(row.loader)(folder, **options)
    except ValidationError as error:
        problem = error.errors()[0]
        raise UserError(
            f"option {problem['loc'][0]} of data set {name!r}: {problem['msg']}, not "
            f"{shorten(repr(problem['input']))}"
        ) from None
    return ImageData(
        raw.images,
        raw.labels,
        raw.class_names,
        raw.test,
        raw.notes,
        name=name,
        augmentation=row.augmentation or Augmentation(),
    )


def _check_options(row: Dataset, options: dict[str, Any]) -> None:
    _, *allowed = inspect.signature(row.loader).parameters
    for option in options:
        if not allowed:
            raise UserError(f"data set {row.name!r} takes no options: leave out {option!r}")
        if option not in allowed:
            raise unknown_name(f"option of data set {row.name!r}", option, allowed)
