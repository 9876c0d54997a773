"""Fashion-MNIST, from its idx files."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

from search_spaces.errors import UserError
from trainables.data.augment import Augmentation
from trainables.data.dataset import LabelledImages, RawData
from trainables.data.registry import download_set, missing_set, register_dataset

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
_FILES = tuple(
    f"{part}-{content}-ubyte.gz"
    for part in ("train", "t10k")
    for content in ("images-idx3", "labels-idx1")
)


@register_dataset(
    "fashion_mnist",
    source="Xiao, Rasul and Vollgraf, 2017: https://arxiv.org/abs/1708.07747",
    summary="60,000 + 10,000 images of clothes, 28x28, grey, 10 classes",
    augmentation=Augmentation(padding=4, flip=True),
)
def fashion_mnist(root: Path | None, download: bool = False) -> RawData:
    """Load Fashion-MNIST, (60000, 1, 28, 28) and a test part of 10,000.

    Args:
        root: Folder to search first: ``root/fashion_mnist``, ``root/FashionMNIST/raw``, ``root``;
            then the folder of Debian's package is searched.
        download: Whether torchvision downloads the set to `root` when it is in none of these.

    Raises:
        UserError: The set is missing, or a file is not in the expected format.
    """
    folder = _find(root)
    if folder is None and download:
        from torchvision.datasets import FashionMNIST

        download_set("fashion_mnist", root, lambda to: FashionMNIST(to, download=True))
        folder = _find(root)
    if folder is None:
        raise missing_set(
            "fashion_mnist",
            _candidates(root),
            f"put {', '.join(_FILES)} into a folder and give it as root or in $SASE_DATA, "
            f"or install Debian's package dataset-fashion-mnist, "
            f"or have torchvision download it (30 MB) with --set data.options.download=true",
        )
    train, test = _read_part(folder, *_FILES[:2]), _read_part(folder, *_FILES[2:])
    return RawData(train.images, train.labels, CLASSES, test)


def _candidates(root: Path | None) -> list[Path]:
    inside = [root / "fashion_mnist", root / "FashionMNIST" / "raw", root] if root else []
    return [*inside, DEBIAN_FOLDER]


def _find(root: Path | None) -> Path | None:
    for folder in _candidates(root):
        if all((folder / file).is_file() for file in _FILES):
            return folder
    return None


def _read_part(folder: Path, images_file: str, labels_file: str) -> LabelledImages:
    images = read_idx(folder / images_file, dimensions=3).unsqueeze(1)
    labels = read_idx(folder / labels_file, dimensions=1).to(torch.int64)
    if len(images) != len(labels):
        raise UserError(
            f"{folder / images_file} has {len(images)} images but {labels_file} has "
            f"{len(labels)} labels: get the files again"
        )
    return LabelledImages(images, labels)


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read a gzipped idx file of unsigned bytes into a uint8 tensor.

    The format: two zero bytes, a byte for the type (8: unsigned byte), a byte for the number of
    dimensions, each length as a big-endian 32-bit integer, then the bytes.

    Raises:
        UserError: The file cannot be read, is not an idx file, or its length is not as declared.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}): get it again") from error
    start = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < start:
        raise UserError(
            f"{path} is not an idx file of unsigned bytes in {dimensions} dimensions "
            f"(it begins with {content[:4].hex() or 'nothing'}): get it again"
        )
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if len(content) - start != math.prod(shape):
        raise UserError(
            f"{path} has {len(content) - start} bytes of data, expected {math.prod(shape)} "
            f"for the shape {tuple(shape)} in its header: get it again"
        )
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).reshape(shape)
