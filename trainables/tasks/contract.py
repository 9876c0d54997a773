"""What a task is: the contract that every file of this folder fulfils."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from search_spaces.catalogue import Catalogue
from search_spaces.configurable import Configurable
from search_spaces.errors import unknown_name
from trainables.data import FinalData, SearchData
from trainables.metrics import Metric, bare_name
from trainables.tasks.registry import TASKS

Build = Callable[[str, int], nn.Module]
"""Builds the host with a module (genotype or baseline, as text) and a seed of initial weights."""


class Task(Configurable, ABC):
    """What a network is trained for; its fields are its options.

    Its life, in order:

    1. `prepare` gives the data the targets that the task needs.
    2. `loss` is differentiated at each step, of outputs and targets of one batch.
    3. To evaluate, the sums that `tally` returns for each batch are added up, and `measure` turns
       them into the metrics.

    `metrics` names these; the first one is the loss, the last one a share of images, 0 to 1, by
    which final trainings are compared. They are reported as `val_<name>` on
    validation images and as `test_<name>` on test images.
    """

    catalogue: ClassVar[Catalogue[Any]] = TASKS

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """The declared metrics of an evaluation: first `loss`, last a share of images."""

    @property
    def final(self) -> str:
        """The name of the metric by which final trainings are compared, such as `test_accuracy`."""
        return self.reported("test")[-1]

    def prepare(
        self, search: SearchData, final: FinalData, build: Build
    ) -> tuple[SearchData, FinalData]:
        """Return both views of the data with the targets of this task; by default as they are.

        Args:
            search: what searches read.
            final: what the final protocol reads.
            build: builds the host, for a task that needs another network.

        Raises:
            UserError: the data cannot serve this task.
        """
        return search, final

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean loss of a batch, to differentiate.

        Args:
            outputs: (B, K), in float32 or float64.
            targets: of the batch, (B, ...).
            label_smoothing: of the training protocol, 0 to 1.
        """

    @abstractmethod
    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return sums over a batch, (S,) in float64 on the device, for `measure`.

        Args:
            outputs: (B, K), float32.
            targets: of the batch, (B, ...).
        """

    @abstractmethod
    def measure(self, sums: list[float], count: int) -> dict[str, float]:
        """Return the metrics by name.

        Args:
            sums: of `tally`, over all batches.
            count: images.
        """

    @abstractmethod
    def reward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return what a controller is rewarded by on a batch: 0 to 1, higher is better."""

    def reported(self, part: str) -> tuple[str, ...]:
        """Return the names under which the metrics are reported for a part of the data."""
        return tuple(f"{part}_{metric.name}" for metric in self.metrics)

    def metric(self, reported: str) -> Metric:
        """Return the metric of a reported name, as this task means it.

        Raises:
            UserError: the task has no such metric.
        """
        own = {metric.name: metric for metric in self.metrics}
        name = bare_name(reported)
        if name not in own:
            raise unknown_name(f"metric of task {self.name!r}", name, own)
        return own[name]

    def lost(self, part: str) -> dict[str, float]:
        """Return the metrics of a training that diverged, so that it is ranked last."""
        return {f"{part}_{metric.name}": metric.when_lost for metric in self.metrics}
