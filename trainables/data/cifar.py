"""CIFAR-10 and CIFAR-100, from their pickled Python files."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from search_spaces.errors import UserError
from trainables.data.augment import Augmentation
from trainables.data.dataset import LabelledImages, RawData
from trainables.data.registry import download_set, missing_set, register_dataset

T = TypeVar("T")

_SOURCE = "Krizhevsky, 2009: https://www.cs.toronto.edu/~kriz/cifar.html"
_AUGMENTATION = Augmentation(padding=4, flip=True)


@register_dataset(
    "cifar10",
    source=_SOURCE,
    summary="50,000 + 10,000 photographs, 32x32, colour, 10 classes",
    augmentation=_AUGMENTATION,
)
def cifar10(root: Path | None, download: bool = False) -> RawData:
    """Load CIFAR-10, (50000, 3, 32, 32) and a test part of 10,000; see `_load`."""
    from torchvision.datasets import CIFAR10

    return _load("cifar10", CIFAR10, "labels", root, download)


@register_dataset(
    "cifar100",
    source=_SOURCE,
    summary="50,000 + 10,000 photographs, 32x32, colour, 100 classes",
    augmentation=_AUGMENTATION,
)
def cifar100(root: Path | None, download: bool = False) -> RawData:
    """Load CIFAR-100 with its fine labels, (50000, 3, 32, 32) and a test part; see `_load`."""
    from torchvision.datasets import CIFAR100

    return _load("cifar100", CIFAR100, "fine_labels", root, download)


def _load(name: str, kind: Any, label_key: str, root: Path | None, download: bool) -> RawData:
    """Find the folder, download it if requested, and read it.

    Args:
        name: Name of the data set.
        kind: Torchvision's class, which lists, downloads and verifies the files.
        label_key: Key of the labels in a file.
        root: Folder to search: ``root/<torchvision's folder>``, ``root/<name>/<the same>``.
        download: Whether torchvision downloads the set to `root` when it is in neither.

    Raises:
        UserError: The set is missing, or a file is not in the expected format.
    """
    train_files = [file for file, _ in kind.train_list]
    test_files = [file for file, _ in kind.test_list]
    meta_file = kind.meta["filename"]
    candidates = [root / kind.base_folder, root / name / kind.base_folder] if root else []

    def find() -> Path | None:
        needed = (*train_files, *test_files, meta_file)
        complete = (f for f in candidates if all((f / file).is_file() for file in needed))
        return next(complete, None)

    folder = find()
    if folder is None and download:
        download_set(name, root, lambda to: kind(to, download=True))
        folder = find()
    if folder is None:
        raise missing_set(
            name,
            candidates,
            f"put the folder {kind.base_folder} of {kind.url} into a folder and give that as root "
            f"or in $SASE_DATA, or have torchvision download it (170 MB) "
            f"with --set data.options.download=true",
        )
    train = _read_part([folder / file for file in train_files], label_key)
    test = _read_part([folder / file for file in test_files], label_key)
    names = _read(folder / meta_file, lambda meta: tuple(map(str, meta[kind.meta["key"]])))
    return RawData(train.images, train.labels, names, test)


def _read_part(files: list[Path], label_key: str) -> LabelledImages:
    def parse(content: dict[str, Any]) -> LabelledImages:
        images = torch.from_numpy(content["data"].reshape(-1, 3, 32, 32).copy())
        return LabelledImages(images, torch.tensor(content[label_key], dtype=torch.int64))

    parts = [_read(file, parse) for file in files]
    return LabelledImages(
        torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])
    )


def _read(file: Path, parse: Callable[[Any], T]) -> T:
    try:
        with file.open("rb") as stream:
            return parse(_ArrayUnpickler(stream, encoding="latin1").load())
    except Exception as error:
        # A damaged pickle may raise any of these; they mean the same to the user.
        raise UserError(f"{file} is not a CIFAR file ({error!r}): get it again") from error


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler of plain containers and numpy arrays that refuses to call anything else.

    It reads files safely whatever their MD5 sum; torchvision verifies the sum of the files that it
    downloads.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return the object for an allowed name.

        Raises:
            pickle.UnpicklingError: The name is not allowed.
        """
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]


def _encode(text: str, encoding: str) -> bytes:
    """Replace `_codecs.encode`, with which Python 3 pickles bytes for Python 2."""
    return text.encode("latin1")


_reconstruct = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
}
