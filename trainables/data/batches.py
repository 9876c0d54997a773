"""Batches of images that are kept on the device, without worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from search_spaces.errors import UserError
from trainables.data.augment import (
    Augmentation,
    Normalisation,
    normalise,
    random_crop,
    random_cutout,
    random_flip,
)
from trainables.data.dataset import LabelledImages


class Batches:
    """Epochs of normalised, augmented batches, which can be stopped and resumed at any batch.

    ``for images, targets in batches`` goes through one epoch: images float32 (B, C, H, W), targets
    classes int64 (B,) unless the part has others, both on the device of the part. A loop that ends
    early is continued by the next one. The order is drawn by a generator on the CPU, so it is the
    same on every device; augmentation draws from one on the device.
    """

    def __init__(
        self,
        part: LabelledImages,
        batch_size: int,
        normalisation: Normalisation,
        *,
        indices: Tensor | None = None,
        seed: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
        augmentation: Augmentation | None = None,
        channels_last: bool = False,
    ) -> None:
        """Begin the first epoch.

        Args:
            part: Images to use.
            batch_size: Images per batch.
            normalisation: Statistics of the train part.
            indices: Indices of the images to use, int64; the default is all.
            seed: Seed of order and augmentation.
            shuffle: Whether each epoch has a new random order.
            drop_last: Whether an incomplete last batch of an epoch is left out.
            augmentation: Augmentation for training; None is none.
            channels_last: Whether images have the channels-last memory format.

        Raises:
            UserError: There are no images, or too few for one batch.
        """
        self.part = part
        device = part.images.device
        self._indices = (torch.arange(len(part)) if indices is None else indices).to(device)
        if batch_size < 1 or not len(self._indices):
            raise UserError(
                f"batches need a batch_size of at least 1 (got {batch_size}) "
                f"and at least 1 image (got {len(self._indices)})"
            )
        if drop_last and batch_size > len(self._indices):
            raise UserError(
                f"batch_size {batch_size} is larger than the {len(self._indices)} images to train "
                f"on: choose a smaller batch_size or a larger train_size"
            )
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.augmentation = augmentation or Augmentation()
        self.epoch = 0
        self._mean = torch.tensor(normalisation.mean, device=device)
        self._std = torch.tensor(normalisation.std, device=device)
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._order_generator = torch.Generator().manual_seed(seed)
        self._augment_generator = torch.Generator(device)
        self._augment_generator.manual_seed(
            int(torch.randint(2**62, (), generator=self._order_generator))
        )
        self._begin_epoch()

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        full, rest = divmod(len(self._indices), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    @property
    def samples_per_epoch(self) -> int:
        """Number of images that an epoch yields."""
        return min(len(self) * self.batch_size, len(self._indices))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the remaining batches of the current epoch."""
        for _ in range(self._position, len(self)):
            yield self._next()

    def forever(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches without end, one epoch after the other."""
        while True:
            yield self._next()

    def first(self, count: int = 1) -> list[tuple[Tensor, Tensor]]:
        """Return the first batches of the images in stored order, without augmentation."""
        chunks = self._indices.split(self.batch_size)[:count]
        return [(self._normalised(self.part.images[i]), self.part.targets[i]) for i in chunks]

    def state_dict(self) -> dict[str, Any]:
        """Return the plain, picklable state from which `load_state_dict` resumes."""
        return {
            "epoch": self.epoch,
            "position": self._position,
            "samples": len(self._indices),
            "batch_size": self.batch_size,
            "order": self._order_state.clone(),
            "augmentation": self._augment_generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume where the state was taken: the batches that follow are exactly the same.

        Raises:
            UserError: The state is of batches of another size or number of images.
        """
        for key, own in {"samples": len(self._indices), "batch_size": self.batch_size}.items():
            if state[key] != own:
                raise UserError(
                    f"the checkpoint's batches have {key} {state[key]}, these have {own}: "
                    f"resume with the settings the run began with"
                )
        self._order_generator.set_state(state["order"])
        self._begin_epoch()
        self._augment_generator.set_state(state["augmentation"])
        self.epoch, self._position = state["epoch"], state["position"]

    def _begin_epoch(self) -> None:
        self._position = 0
        self._order_state = self._order_generator.get_state()
        self._order = self._indices
        if self.shuffle:
            shuffled = torch.randperm(len(self._indices), generator=self._order_generator)
            self._order = self._indices[shuffled.to(self._indices.device)]

    def _next(self) -> tuple[Tensor, Tensor]:
        start = self._position * self.batch_size
        chosen = self._order[start : start + self.batch_size]
        batch = self._prepare(self.part.images[chosen]), self.part.targets[chosen]
        self._position += 1
        # The epoch ends with its last batch, not with the request for one more: a state taken
        # during the last batch is then the beginning of the next epoch.
        if self._position == len(self):
            self.epoch += 1
            self._begin_epoch()
        return batch

    def _prepare(self, images: Tensor) -> Tensor:
        augmentation, generator = self.augmentation, self._augment_generator
        if augmentation.padding:
            images = random_crop(images, augmentation.padding, generator)
        if augmentation.flip:
            images = random_flip(images, generator)
        ready = normalise(images, self._mean, self._std)
        if augmentation.cutout:
            ready = random_cutout(ready, augmentation.cutout, generator)
        return ready.contiguous(memory_format=self._format)

    def _normalised(self, images: Tensor) -> Tensor:
        ready = normalise(images, self._mean, self._std)
        return ready.contiguous(memory_format=self._format)
