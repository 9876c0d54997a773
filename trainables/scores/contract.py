"""The contract of a training-free score, which every file of this folder fulfils."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from search_spaces.catalogue import Catalogue
from search_spaces.configurable import Configurable
from trainables.metrics import Metric
from trainables.scores.registry import SCORES
from trainables.tasks.contract import Task


class Score(Configurable, ABC):
    """Base class of the scores of an untrained network on one batch; its fields are its options.

    `metric` is declared in the score's file: a trial reports its name; its mode states whether
    a smaller or a larger score is better.
    """

    catalogue: ClassVar[Catalogue[Any]] = SCORES
    source: ClassVar[str]
    metric: ClassVar[Metric]
    passes: ClassVar[int]
    """Number of forward-backward passes over the batch that a score takes; 0 reads no image."""

    @abstractmethod
    def compute(self, network: nn.Module, images: Tensor, targets: Tensor, task: Task) -> float:
        """Return the score of a network, and leave its weights, buffers and gradients unchanged.

        Args:
            network: Network from images to outputs, in training or evaluation mode; the score is
                computed in the mode that its source requires.
            images: Normalised images, float (B, C, H, W), on the network's device.
            targets: Targets of the task, (B, ...).
            task: Task whose loss the score may use.
        """

    def samples(self, batch_size: int) -> int:
        """Return the cost of scoring one network, in training samples."""
        return self.passes * batch_size
