"""Distillation: matching the outputs of another network, the teacher.

Hinton, Vinyals and Dean, 2015, https://arxiv.org/abs/1503.02531 (probabilities); Ba and Caruana,
NeurIPS 2014, https://arxiv.org/abs/1312.6184 (logits).
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.errors import UserError
from search_spaces.ops.kernels.mode import fused
from trainables.data import Augmentation, Batches, FinalData, LabelledImages, SearchData
from trainables.data.dataset import TargetImages
from trainables.metrics import LOSS, Metric, declare
from trainables.tasks.contract import Build, Task
from trainables.training.loop import (
    Diverged,
    Trainer,
    evaluation_mode,
    train_epoch,
    training_batches,
)
from trainables.training.protocol import TrainingProtocol

View = TypeVar("View", SearchData, FinalData)

NORMALISED_ERROR = Metric("normalised_error", "min", format=".3g", ratio=True)
AGREEMENT = Metric(
    "agreement", "max", "%", ".2f", scale=100.0, difference="points", lost=0.0, share=True
)
SQUARED_ERROR = Metric("loss", "min", label="mean squared error", ratio=True)
declare(NORMALISED_ERROR, AGREEMENT)

BATCH_SIZE = 512


class Distillation(Task):
    """Matching of a teacher's logits, float32 (B, K), computed once on images without augmentation.

    By default the teacher is the host with another module, trained on the classes. For any other
    teacher, use `label_by`.
    """

    name: ClassVar[str] = "distillation"
    summary: ClassVar[str] = "the outputs of another network: its probabilities or its logits"

    match: Literal["probabilities", "logits"] = Field(
        default="probabilities",
        description="cross-entropy to the teacher's probabilities, or mean squared error of logits",
    )
    temperature: float = Field(default=1.0, gt=0, description="of the probabilities")
    teacher: str = Field(default="se", description="module of the teacher: genotype or baseline")
    teacher_seed: int = Field(default=0, ge=0, description="of the teacher's initial weights")
    teacher_epochs: int = Field(
        default=5, ge=0, le=10_000, description="training of the teacher on the classes"
    )

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Loss, agreement and normalised error.

        The agreement is the share of images whose largest output is that of the teacher, which
        hardly differs among students; the normalised error is the squared error divided by the
        variance of the teacher's logits, by whose logarithm students are compared. Probabilities
        determine logits up to a constant per image, which is then removed from both.
        """
        loss = LOSS if self.match == "probabilities" else SQUARED_ERROR
        return loss, AGREEMENT, NORMALISED_ERROR

    def prepare(
        self, search: SearchData, final: FinalData, build: Build
    ) -> tuple[SearchData, FinalData]:
        """Train the teacher on the search's training images, and label both views with it."""
        teacher = build(self.teacher, self.teacher_seed)
        protocol = TrainingProtocol(epochs=max(1, self.teacher_epochs))
        device = torch.device("cpu")
        batches = training_batches(search, protocol, self.teacher_seed, device)
        trainer = Trainer(
            teacher, teacher.parameters(), protocol, len(batches) * protocol.epochs, device
        )
        with torch.random.fork_rng([]):
            torch.manual_seed(self.teacher_seed)
            try:
                for _ in range(self.teacher_epochs):
                    train_epoch(trainer, batches)
            except Diverged as divergence:
                raise UserError(f"the teacher {self.teacher!r}: {divergence}") from None
        return label_by(teacher, search), label_by(teacher, final)

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy in nats at the temperature, or the mean squared error.

        Label smoothing is ignored: it is for classes, and a teacher's probabilities are soft.
        """
        return self._losses(outputs, targets.to(outputs.dtype)).mean()

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sums of loss, squared error, agreement, squared logits and logits (K)."""
        wide = self._determined(targets.double())
        agree = outputs.argmax(1) == targets.argmax(1)
        sums = [
            self._losses(outputs, targets).sum(),
            (self._determined(outputs.double()) - wide).square().sum(),
            agree.sum(),
            wide.square().sum(),
        ]
        return torch.cat([torch.stack([value.double() for value in sums]), wide.sum(0)])

    def measure(self, sums: list[float], count: int) -> dict[str, float]:
        """Return `loss`, `agreement` and `normalised_error`.

        The variance of each logit over the images is summed over the logits: a network that
        returns the teacher's mean logits for every image has a normalised error of 1.
        """
        loss, error, agree, squares, *logits = sums
        variance = squares - sum(value * value for value in logits) / count
        return {
            "loss": loss / count,
            "agreement": agree / count,
            "normalised_error": error / variance if variance > 0 else float("inf"),
        }

    def reward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return 1 / (1 + normalised error): agreement hardly tells students apart."""
        wanted = self._determined(targets)
        error = (self._determined(outputs) - wanted).square().sum()
        variance = (wanted - wanted.mean(0)).square().sum()
        return variance / (variance + error)

    def _determined(self, logits: Tensor) -> Tensor:
        """Return the part of the logits, (B, K), that what is matched determines."""
        return logits if self.match == "logits" else logits - logits.mean(1, keepdim=True)

    def _losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each image, (B,)."""
        if self.match == "logits":
            return (outputs - targets).square().mean(1)
        probabilities = F.softmax(targets / self.temperature, dim=1)
        return F.cross_entropy(outputs / self.temperature, probabilities, reduction="none")


def label_by(teacher: nn.Module, data: View) -> View:
    """Return a view of a data set whose targets are a network's logits.

    The targets belong to the unchanged images, so the view has no augmentation. The classes are
    preserved, for splits and figures.

    Args:
        teacher: Network from images (B, C, H, W) to logits (B, K), on the device of the images.
        data: View of the data set.

    Raises:
        UserError: The logits are not finite, or the same for all training images.
    """
    if isinstance(data, SearchData):
        validation = _labelled(teacher, data.validation, data)
        labelled: View = replace(data, validation=validation)
    else:
        labelled = replace(data, test=_labelled(teacher, data.test, data))
    train = _labelled(teacher, data.train, data)
    if not train.values.isfinite().all():
        raise UserError("the teacher's logits are not finite")
    if (train.values == train.values[0]).all():
        raise UserError("the teacher gives the same logits for all images: nothing can be learned")
    return replace(labelled, train=train, augmentation=Augmentation())


@torch.no_grad()
def _labelled(
    teacher: nn.Module, part: LabelledImages, data: SearchData | FinalData
) -> TargetImages:
    batches = Batches(part, BATCH_SIZE, data.normalisation)
    with evaluation_mode(teacher), fused():
        values = torch.cat([teacher(images).float() for images, _ in batches])
    return TargetImages(part.images, part.labels, values)
