"""The training loop of proxy trials, final trainings and the weight steps of a supernet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.ops.kernels.mode import fused
from trainables.data import Batches, FinalData, SearchData
from trainables.tasks.classification import CLASSIFICATION
from trainables.tasks.contract import Task
from trainables.training.protocol import TrainingProtocol

Batch = tuple[Tensor, Tensor]

EXPLODED = 100.0
"""Mean loss above which a training is lost; in nats, guessing 1 class of 1000 costs 6.9."""


class Diverged(Exception):  # noqa: N818
    """Divergence of a training. The message is the reason to record."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a network on a set of images.

    Attributes:
        values: The task's metrics by name, including `loss`.
    """

    values: Mapping[str, float]

    @property
    def loss(self) -> float:
        """Mean loss."""
        return self.values["loss"]

    def __getitem__(self, metric: str) -> float:
        """Return a metric by name."""
        return self.values[metric]

    def reported(self, part: str) -> dict[str, float]:
        """Return the metrics under their reported names for a part of the data."""
        return {f"{part}_{name}": value for name, value in self.values.items()}


def cosine_schedule(protocol: TrainingProtocol, total_steps: int) -> Callable[[int], float]:
    """Return the factor of the peak learning rate: linear warm-up, then a cosine to `lr_min`."""
    warmup = int(protocol.warmup * total_steps)
    floor = protocol.lr_min / protocol.lr

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2

    return factor


def training_batches(
    data: SearchData | FinalData, protocol: TrainingProtocol, seed: int, device: torch.device
) -> Batches:
    """Return batches of training images, with order and augmentation drawn by the seed."""
    return Batches(
        data.train,
        min(protocol.batch_size, len(data.train)),
        data.normalisation,
        seed=seed,
        shuffle=True,
        drop_last=True,
        augmentation=data.augmentation if protocol.augment else None,
        channels_last=protocol.channels_last and device.type == "cuda",
    )


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return the state of torch's own generators, which dropout and stochastic depth draw from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Restore a state that `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


class Trainer:
    """Optimiser and schedule of the weights of one network.

    Args:
        forward: Function from images (B, C, H, W) to logits (B, classes).
        parameters: Parameters to train, or groups of them with an "lr" of their own, as torch's
            optimisers take them.
        protocol: Training protocol.
        total_steps: Length of the learning-rate schedule in steps.
        device: Device of the network.
        task: Task whose loss is minimised.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        parameters: Iterable[nn.Parameter] | Sequence[dict[str, Any]],
        protocol: TrainingProtocol,
        total_steps: int,
        device: torch.device,
        task: Task = CLASSIFICATION,
    ) -> None:
        self.forward = forward
        self.task = task
        self.protocol = protocol
        self.total_steps = total_steps
        self.device = device
        self.optimizer = _make_optimizer(list(parameters), protocol, device)
        self.parameters = [
            p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad
        ]
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, cosine_schedule(protocol, total_steps)
        )

    def loss(self, batch: Batch) -> Tensor:
        """Return the task's mean loss on a batch, to differentiate."""
        images, targets = batch
        with fused(), autocast(self.protocol, self.device):
            outputs = self.forward(images)
        if outputs.dtype != torch.float64:
            outputs = outputs.float()
        return self.task.loss(outputs, targets, self.protocol.label_smoothing)

    def step(self, batch: Batch) -> Tensor:
        """Take one gradient step; return the loss before it, detached and still on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        # Only for the trained weights: a supernet's loss also depends on architecture parameters.
        if self.parameters:
            loss.backward(inputs=self.parameters)
        if self.protocol.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.protocol.clip)
        self.optimizer.step()
        self.scheduler.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of optimiser and schedule."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])


def train_epoch(
    trainer: Trainer,
    batches: Iterable[Batch],
    *,
    before_step: Callable[[Batch], None] | None = None,
    after_step: Callable[[], None] | None = None,
) -> float:
    """Step through the batches once.

    Args:
        before_step: Called with each batch before its weight step; a one-shot search steps its
            architecture parameters here.
        after_step: Called after each weight step; averaged weights are updated here.

    Returns:
        The mean training loss.

    Raises:
        Diverged: The mean loss is not finite, or above `EXPLODED`.
    """
    total = torch.zeros((), device=trainer.device)
    steps = 0
    for batch in batches:
        if before_step is not None:
            before_step(batch)
        total += trainer.step(batch)
        if after_step is not None:
            after_step()
        steps += 1
    # Read the loss once per epoch: reading it at each step would make the device wait.
    loss = float(total) / max(1, steps)
    if not math.isfinite(loss):
        raise Diverged("training loss is not finite")
    if loss > EXPLODED:
        raise Diverged(f"training loss rose to {loss:.3g}")
    return loss


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    protocol: TrainingProtocol,
    device: torch.device,
    task: Task = CLASSIFICATION,
    *,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> Evaluation:
    """Evaluate a network in evaluation mode on all batches.

    Args:
        model: Network; it is put into evaluation mode, and back.
        task: Task whose metrics are measured.
        forward: Function to call instead of the model, e.g. a supernet with its mixture.

    Raises:
        Diverged: The loss is not finite.
    """
    sums = torch.zeros((), device=device, dtype=torch.float64)
    count = 0
    with evaluation_mode(model):
        for images, targets in batches:
            with fused(), autocast(protocol, device):
                outputs = (forward or model)(images)
            sums = sums + task.tally(outputs.float(), targets)
            count += len(targets)
    result = Evaluation(task.measure(sums.tolist(), count))
    if not math.isfinite(result.loss):
        raise Diverged("validation loss is not finite")
    return result


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and back."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def autocast(protocol: TrainingProtocol, device: torch.device) -> AbstractContextManager[None]:
    """Return the autocast context of the protocol's precision on this device."""
    enabled = protocol.amp and device.type == "cuda"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def place(model: nn.Module, protocol: TrainingProtocol, device: torch.device) -> nn.Module:
    """Move a network to the device, in the memory format that the protocol sets for it."""
    if protocol.deterministic:
        torch.use_deterministic_algorithms(True)
    if protocol.channels_last and device.type == "cuda":
        return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.to(device)


def _make_optimizer(
    parameters: list[Any],
    protocol: TrainingProtocol,
    device: torch.device,
) -> torch.optim.Optimizer:
    if protocol.optimizer == "adamw":
        return torch.optim.AdamW(
            parameters,
            lr=protocol.lr,
            weight_decay=protocol.weight_decay,
            fused=device.type == "cuda",
        )
    # Not fused: that fails where a parameter has its first gradient later than others, as in
    # searches that train one path per step.
    return torch.optim.SGD(
        parameters,
        lr=protocol.lr,
        momentum=protocol.momentum,
        weight_decay=protocol.weight_decay,
    )
