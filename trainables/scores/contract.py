"""What a training-free score is: the contract that every file of this folder fulfils."""

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
    """A number that one batch gives to an untrained network. Its fields are its options.

    `metric` is declared in the score's file: its name is what a trial reports, its mode says
    whether the score is better small or large.
    """

    catalogue: ClassVar[Catalogue[Any]] = SCORES
    source: ClassVar[str]
    metric: ClassVar[Metric]
    passes: ClassVar[int]
    """Forward-backward passes over the batch that a score takes; 0 reads no image."""

    @abstractmethod
    def compute(self, network: nn.Module, images: Tensor, targets: Tensor, task: Task) -> float:
        """Return the score of a network, which is left as it was: weights, buffers, gradients.

        Args:
            network: images to outputs, in training or evaluation mode; the score is computed in
                the mode that its source asks for.
            images: float (B, C, H, W), normalised, on the network's device.
            targets: of the task, (B, ...).
            task: whose loss the score may use.
        """

    def samples(self, batch_size: int) -> int:
        """Return what the score of one network costs, in training samples."""
        return self.passes * batch_size
