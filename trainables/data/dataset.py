"""Image sets that are held completely in memory, as uint8 tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from search_spaces.errors import UserError
from trainables.data.augment import Augmentation


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images and their classes.

    Attributes:
        images: Images, uint8 (N, C, H, W).
        labels: Classes from 0, int64 (N,).

    Raises:
        UserError: On construction, if the shapes or types are different.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise UserError(
                f"images must be a uint8 tensor (N, C, H, W), "
                f"not {self.images.dtype} {tuple(self.images.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise UserError(
                f"labels must be an int64 tensor ({len(self.images)},), one for each image, "
                f"not {self.labels.dtype} {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def targets(self) -> Tensor:
        """Desired output of a network for each image, (N, ...): here its class."""
        return self.labels

    def to(self, device: torch.device | str) -> LabelledImages:
        """Return the same images on a device."""
        return LabelledImages(self.images.to(device), self.labels.to(device))

    def select(self, indices: Tensor) -> LabelledImages:
        """Copy the images at `indices` (K,); the copy shares no storage with this part."""
        indices = indices.to(self.labels.device)
        return LabelledImages(self.images[indices], self.labels[indices])


@dataclass(frozen=True, eq=False)
class TargetImages(LabelledImages):
    """Images with targets other than their classes, such as another network's logits.

    Attributes:
        values: Targets, floating point (N, K).

    Raises:
        UserError: On construction, if the targets do not match the images.
    """

    values: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.values.dim() == 2 and len(self.values) == len(self.images)
        if not fits or not self.values.is_floating_point():
            raise UserError(
                f"targets must be a floating point tensor ({len(self.images)}, K), one row for "
                f"each image, not {self.values.dtype} {tuple(self.values.shape)}"
            )

    @property
    def targets(self) -> Tensor:
        """The targets that are not classes."""
        return self.values

    def to(self, device: torch.device | str) -> TargetImages:
        """Return the same images on a device."""
        return TargetImages(self.images.to(device), self.labels.to(device), self.values.to(device))

    def select(self, indices: Tensor) -> TargetImages:
        """Copy the images at `indices` (K,); the copy shares no storage with this part."""
        indices = indices.to(self.labels.device)
        return TargetImages(self.images[indices], self.labels[indices], self.values[indices])


@dataclass(frozen=True, eq=False)
class RawData(LabelledImages):
    """Result of a loader: the development part, and the official test part if there is one.

    Attributes:
        images, labels: Development part.
        class_names: Name of each label, in order.
        test: Official test part, or None.
        notes: Sentences on how the images were read that their user should know.

    Raises:
        UserError: On construction, if a part is empty, a label is outside of the class names,
            or the shape of the test images is not that of the others.
    """

    class_names: tuple[str, ...]
    test: LabelledImages | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for what, part in {"development": self, "test": self.test}.items():
            if part is None:
                continue
            if not len(part):
                raise UserError(f"the {what} part has no images")
            low, high = int(part.labels.min()), int(part.labels.max())
            if low < 0 or high >= self.num_classes:
                raise UserError(
                    f"the labels of the {what} part go from {low} to {high}, "
                    f"expected 0 to {self.num_classes - 1} for {self.num_classes} classes"
                )
            if part.images.shape[1:] != self.images.shape[1:]:
                raise UserError(
                    f"test images are {tuple(part.images.shape[1:])}, "
                    f"expected {tuple(self.images.shape[1:])} as in the development part"
                )

    @property
    def num_classes(self) -> int:
        """Number of classes of the set."""
        return len(self.class_names)


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageData(RawData):
    """A registered data set, loaded. It holds the test part, so searches read a `SearchData`.

    Attributes:
        name: Registered name.
        augmentation: Default augmentation of the set's training images.
    """

    name: str
    augmentation: Augmentation
