"""The catalogue of data sets and its decorator, which load without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from search_spaces.catalogue import Catalogue
from search_spaces.declarations import Decorated
from search_spaces.errors import UserError

if TYPE_CHECKING:
    from trainables.data.augment import Augmentation
    from trainables.data.dataset import RawData

Loader = TypeVar("Loader", bound="Callable[..., RawData]")


@dataclass(frozen=True)
class Dataset:
    """A catalogue row: a data set, its source, and the augmentation of its training images."""

    name: str
    loader: Callable[..., RawData]
    source: str
    summary: str
    augmentation: Augmentation | None
    targets: tuple[str, ...] = ("class",)


DATASETS: Catalogue[Dataset] = Catalogue(
    "data set", "trainables.data", Decorated("register_dataset")
)


def register_dataset(
    name: str,
    *,
    source: str,
    summary: str,
    augmentation: Augmentation | None = None,
    targets: tuple[str, ...] = ("class",),
) -> Callable[[Loader], Loader]:
    """Enter a loader ``(root: Path | None, **options) -> RawData`` into the catalogue.

    Args:
        name: Name of the set on the command line.
        source: Origin of the data: a paper or an address.
        summary: One line for the catalogue.
        augmentation: Default augmentation for training; None is no augmentation.
        targets: Kinds of targets that the set has for each image; a task needs one of them.

    Raises:
        UserError: The name is taken by another loader.
    """

    def enter(loader: Loader) -> Loader:
        DATASETS.enter(name, Dataset(name, loader, source, summary, augmentation, targets), loader)
        return loader

    return enter


def datasets() -> list[Dataset]:
    """Return the catalogue."""
    return DATASETS.entries()


def missing_set(name: str, looked_in: Iterable[Path], remedy: str) -> UserError:
    """Build the error for a missing set: where it was searched for, and how to get it."""
    places = ", ".join(str(place) for place in looked_in)
    where = f"not found in {places}" if places else "not found: neither root nor $SASE_DATA is set"
    return UserError(f"data set {name!r} {where}; {remedy}")


def download_set(name: str, root: Path | None, download: Callable[[str], object]) -> None:
    """Download a set into a folder with torchvision.

    Args:
        name: Name of the data set, for the error.
        root: Folder to download to.
        download: Called with the folder; torchvision checks the files' MD5 sums.

    Raises:
        UserError: There is no folder to download to, or the download failed.
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
