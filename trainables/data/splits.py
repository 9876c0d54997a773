"""Train, validation and test parts: fixed by a seed, with no test image in a search's data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from search_spaces.errors import UserError
from trainables.data.augment import Augmentation, Normalisation
from trainables.data.dataset import ImageData, LabelledImages

VALIDATION_SHARE = 0.2
TEST_SHARE = 0.2
_TEST_SEED = 0


@dataclass(frozen=True, eq=False)
class Splits:
    """Indices of the images for training, for a search's validation and for the final test.

    Attributes:
        seed: Seed by which train and validation were drawn.
        train, validation: Indices into the development part, int64, on the CPU.
        test: Indices into the official test part, or into the development part if it is held out.
        test_part: Kind of the test part, "official" or "held out".
    """

    seed: int
    train: Tensor
    validation: Tensor
    test: Tensor
    test_part: Literal["official", "held out"]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images of each part."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: len(indices) for name, indices in parts.items()}

    @property
    def sha256(self) -> str:
        """Digest of the three lists of indices, in their order."""
        digest = hashlib.sha256(self.test_part.encode())
        for indices in (self.train, self.validation, self.test):
            digest.update(len(indices).to_bytes(8, "little"))
            digest.update(indices.numpy().astype("<i8").tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, int | str]:
        """Return the description that results store: seed, sizes, kind of the test part, digest."""
        return {
            "seed": self.seed,
            **self.sizes,
            "test_part": self.test_part,
            "sha256": self.sha256,
        }


def make_splits(
    data: ImageData,
    seed: int,
    train_size: int | None = None,
    validation_size: int | None = None,
) -> Splits:
    """Split a data set into parts with the class proportions of the whole.

    The test part is the official one; where there is none, it is 20% of the images, the same for
    every seed. The seed puts the other images into a stratified order: validation is its beginning,
    train is its end. So, for one seed, a smaller part is contained in a larger one, and neither
    part depends on the size of the other.

    Args:
        data: Data set to split.
        seed: Seed of the order.
        train_size: Number of images to train on; the default is all remaining ones.
        validation_size: Number of images to validate on; the default is 20% of those that are not
            for the test.

    Raises:
        UserError: A size is below 1, or the sizes exceed the number of images.
    """
    test_part: Literal["official", "held out"]
    if data.test is not None:
        test_part, test, pool = "official", torch.arange(len(data.test)), torch.arange(len(data))
    else:
        test_part = "held out"
        test, pool = held_out_test(data.labels)
    if validation_size is None:
        validation_size = max(1, round(VALIDATION_SHARE * len(pool)))
    if train_size is None:
        train_size = max(1, len(pool) - validation_size)
    _check_sizes(data.name, train_size, validation_size, len(pool))
    order = pool[stratified_order(data.labels.cpu()[pool], seed)]
    return Splits(seed, order.flip(0)[:train_size], order[:validation_size], test, test_part)


def held_out_test(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cut a set without an official test part into a test part of 20% and the rest.

    The cut is the same for every seed, so that no search reads an image that another one is
    tested on.

    Args:
        labels: Classes, int64 (N,).

    Returns:
        Two sorted int64 lists of indices, on the CPU: test, and the rest.
    """
    order = stratified_order(labels, _TEST_SEED)
    held_out = max(1, round(TEST_SHARE * len(labels)))
    return order[:held_out].sort().values, order[held_out:].sort().values


def _check_sizes(name: str, train_size: int, validation_size: int, available: int) -> None:
    for what, size in {"train_size": train_size, "validation_size": validation_size}.items():
        if size < 1:
            raise UserError(f"{what} must be at least 1 image (got {size})")
    if train_size + validation_size > available:
        raise UserError(
            f"data set {name!r} has {available} images outside of the test part, fewer than "
            f"train_size {train_size} + validation_size {validation_size}: choose smaller sizes"
        )


def stratified_order(labels: Tensor, seed: int) -> Tensor:
    """Order the images so that any beginning, or end, of the order has the classes in proportion.

    The k-th of a class's n images, in random order, is put at the fraction (k + 1/2) / n of the
    order; ties are broken at random. With K classes of equal size, the first, or last, K m images
    hold exactly m of each class.

    Args:
        labels: Classes, int64 (N,).
        seed: Seed of the random order.

    Returns:
        A permutation of 0 .. N - 1, int64 (N,), on the CPU.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    place = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        members = (labels[shuffled] == label).nonzero().squeeze(1)
        place[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return shuffled[place.argsort(stable=True)]


@dataclass(frozen=True, eq=False)
class _View:
    """Base class of both views of a data set.

    Attributes:
        name: Name of the data set.
        num_classes: Number of classes of the data set.
        augmentation: Default augmentation of the set's training images.
        normalisation: Statistics of `train`.
        splits: Result of `Splits.describe`, which is written with results.
        train: Images to train on.
    """

    name: str
    num_classes: int
    augmentation: Augmentation
    normalisation: Normalisation
    splits: dict[str, int | str]
    train: LabelledImages

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


@dataclass(frozen=True, eq=False)
class SearchData(_View):
    """Data that a search may read: train and validation images, and no test image.

    Attributes:
        validation: Images by which candidates are judged.
    """

    validation: LabelledImages

    def to(self, device: torch.device | str) -> SearchData:
        """Return the same data on a device."""
        return replace(self, train=self.train.to(device), validation=self.validation.to(device))

    def halves(self, seed: int) -> tuple[Tensor, Tensor]:
        """Cut the train part into two stratified halves, for weights and for architecture.

        Returns:
            Two int64 lists of indices into `train`, on the CPU; the first is the larger by at
            most one.
        """
        order = stratified_order(self.train.labels.cpu(), seed)
        middle = (len(order) + 1) // 2
        return order[:middle], order[middle:]


@dataclass(frozen=True, eq=False)
class FinalData(_View):
    """Data of the final protocol, which trains on train and validation, and tests once.

    Attributes:
        test: Images that no search has read.
    """

    test: LabelledImages

    def to(self, device: torch.device | str) -> FinalData:
        """Return the same data on a device."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))


def search_data(
    data: ImageData, splits: Splits, normalisation: Normalisation | None = None
) -> SearchData:
    """Copy the parts that a search may read; the copy keeps no reference to the test images.

    Args:
        data: Data set.
        splits: Its splits.
        normalisation: What the network expects; the default is measured on the training images.
    """
    train = data.select(splits.train)
    return SearchData(
        name=data.name,
        num_classes=data.num_classes,
        augmentation=data.augmentation,
        normalisation=normalisation or Normalisation.of(train.images),
        splits=splits.describe(),
        train=train,
        validation=data.select(splits.validation),
    )


def final_data(
    data: ImageData, splits: Splits, normalisation: Normalisation | None = None
) -> FinalData:
    """Copy the parts of the final protocol: train together with validation, and test.

    Args:
        data: Data set.
        splits: Its splits.
        normalisation: As for `search_data`.
    """
    train = data.select(torch.cat([splits.train, splits.validation]))
    test = data.test if data.test is not None else data
    return FinalData(
        name=data.name,
        num_classes=data.num_classes,
        augmentation=data.augmentation,
        normalisation=normalisation or Normalisation.of(train.images),
        splits=splits.describe(),
        train=train,
        test=test.select(splits.test),
    )
