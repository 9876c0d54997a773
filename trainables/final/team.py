"""The workers that train one network together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from search_spaces.ops.layers.synced_batch_norm import share_norms
from trainables.data import Batches
from trainables.tasks.contract import Task
from trainables.training.loop import Batch, Trainer
from trainables.training.protocol import TrainingProtocol


@dataclass(frozen=True)
class Team:
    """The workers of one training, from the view of one of them.

    Attributes:
        rank: Number of this worker, from 0.
        size: Number of workers.
    """

    rank: int
    size: int

    @classmethod
    def joined(cls) -> Team:
        """Return the team of torch's default process group."""
        return cls(dist.get_rank(), dist.get_world_size())

    def seed(self, seed: int) -> int:
        """Return a seed for this worker's own draws."""
        return seed * self.size + self.rank

    def part(self, batches: Batches) -> PartOfBatches:
        """Return this worker's part of every batch."""
        return PartOfBatches(batches, self)

    def trainer(
        self,
        model: nn.Module,
        protocol: TrainingProtocol,
        total_steps: int,
        device: torch.device,
        task: Task,
    ) -> Trainer:
        """Return a trainer that steps this worker's copy of the network as on all other workers."""
        return _TeamTrainer(self, model, protocol, total_steps, device, task)


class PartOfBatches:
    """One worker's part of every batch: contiguous, and of equal size or one image smaller.

    Every worker draws order and augmentation of whole batches from the same seed, so that they are
    those of one worker; all images are on its device anyway.
    """

    def __init__(self, batches: Batches, team: Team) -> None:
        self.batches = batches
        self.team = team

    def __iter__(self) -> Iterator[Batch]:
        """Yield the remaining parts of the current epoch."""
        for images, labels in self.batches:
            size, rest = divmod(len(labels), self.team.size)
            start = self.team.rank * size + min(self.team.rank, rest)
            part = slice(start, start + size + (self.team.rank < rest))
            yield images[part], labels[part]


class _TeamTrainer(Trainer):
    """Trainer that steps by the gradient of the mean loss over the parts of all workers."""

    def __init__(
        self,
        team: Team,
        model: nn.Module,
        protocol: TrainingProtocol,
        total_steps: int,
        device: torch.device,
        task: Task,
    ) -> None:
        self.team = team
        copy = DistributedDataParallel(
            share_norms(model),
            device_ids=[torch.cuda.current_device()] if device.type == "cuda" else None,
            broadcast_buffers=False,  # running statistics change equally on all workers
            # As with one worker: parameters that the loss does not depend on are not decayed.
            find_unused_parameters=True,
        )
        super().__init__(copy, model.parameters(), protocol, total_steps, device, task)

    def loss(self, batch: Batch) -> Tensor:
        """Return a loss whose gradient, averaged over the workers, is that of the whole batch."""
        size = torch.tensor(len(batch[1]), device=self.device)
        dist.all_reduce(size)
        return super().loss(batch) * (len(batch[1]) * self.team.size / size)

    def step(self, batch: Batch) -> Tensor:
        """Take one gradient step; return the loss of the whole batch, the same on all workers."""
        loss = super().step(batch)
        dist.all_reduce(loss)
        return loss / self.team.size
