"""The catalogue of data sets, and the decorator that enters one."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError, validate_call

from search_spaces.errors import UserError, shorten, unknown_name
from trainables.data.augment import Augmentation
from trainables.data.dataset import ImageData, RawData

Loader = TypeVar("Loader", bound=Callable[..., RawData])


@dataclass(frozen=True)
class Dataset:
    """A catalogue row: a data set, where it comes from, and how its training images may vary."""

    name: str
    loader: Callable[..., RawData]
    source: str
    summary: str
    augmentation: Augmentation


_CATALOGUE: dict[str, Dataset] = {}


def register_dataset(
    name: str, *, source: str, summary: str, augmentation: Augmentation | None = None
) -> Callable[[Loader], Loader]:
    """Enter a loader ``(root: Path | None, **options) -> RawData`` into the catalogue.

    Args:
        name: what the set is called on the command line.
        source: where the data come from: a paper or an address.
        summary: one line for the catalogue.
        augmentation: the default for training; None is no augmentation.

    Raises:
        UserError: the name is taken by another loader.
    """

    def enter(loader: Loader) -> Loader:
        known = _CATALOGUE.get(name)
        if known and known.loader.__qualname__ != loader.__qualname__:
            raise UserError(f"data set {name!r} is already registered: choose another name")
        _CATALOGUE[name] = Dataset(name, loader, source, summary, augmentation or Augmentation())
        return loader

    return enter


def datasets() -> list[Dataset]:
    """Return the catalogue in order of entry."""
    return list(_CATALOGUE.values())


def load_dataset(name: str, root: str | Path | None = None, **options: Any) -> ImageData:
    """Load a data set into memory.

    Args:
        name: a registered name.
        root: the folder to look in; the default is the folder that $SASE_DATA names, if set.
        options: what the set's loader takes besides, such as ``download`` or ``image_size``.

    Raises:
        UserError: unknown name or option; the set is missing, or its files are damaged.
    """
    if name not in _CATALOGUE:
        raise unknown_name("data set", name, _CATALOGUE)
    row = _CATALOGUE[name]
    _check_options(row, options)
    root = root or os.environ.get("SASE_DATA")
    folder = Path(os.path.expanduser(root)) if root else None
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
        name=name,
        augmentation=row.augmentation,
    )


def _check_options(row: Dataset, options: dict[str, Any]) -> None:
    _, *allowed = inspect.signature(row.loader).parameters
    for option in options:
        if not allowed:
            raise UserError(f"data set {row.name!r} takes no options: leave out {option!r}")
        if option not in allowed:
            raise unknown_name(f"option of data set {row.name!r}", option, allowed)


def missing_set(name: str, looked_in: Iterable[Path], remedy: str) -> UserError:
    """Build the error for a set that is not there: where it was looked for, how to get it."""
    places = ", ".join(str(place) for place in looked_in)
    where = f"not found in {places}" if places else "not found: neither root nor $SASE_DATA is set"
    return UserError(f"data set {name!r} {where}; {remedy}")


def download_set(name: str, root: Path | None, download: Callable[[str], object]) -> None:
    """Have torchvision download a set into a folder.

    Args:
        name: the data set, for the error.
        root: the folder to download to.
        download: called with the folder; torchvision checks the files' MD5 sums.

    Raises:
        UserError: there is no folder to download to, or the download failed.
    """
    if root is None:
        raise UserError(
            f"data set {name!r} cannot be downloaded without a folder to put it in: "
            f"give root or set $SASE_DATA"
        )
    try:
        download(str(root))
    except (RuntimeError, OSError) as error:
        raise UserError(f"data set {name!r} could not be downloaded to {root}: {error}") from error
