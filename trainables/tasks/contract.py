"""The contract of a task, which every file of this folder fulfils."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from search_spaces.catalogue import Catalogue
from search_spaces.configurable import Configurable
from search_spaces.errors import UserError, unknown_name
from trainables.data import FinalData, SearchData
from trainables.data.registry import DATASETS
from trainables.metrics import Metric, bare_name
from trainables.tasks.registry import TASKS

Build = Callable[[str, int], nn.Module]
"""Function from a module (genotype or baseline, as text) and a seed of weights to a host."""


class Task(Configurable, ABC):
    """Base class of the tasks that networks are trained for; its fields are its options.

    Its life, in order:

    1. `prepare` gives the data the targets that the task needs.
    2. `loss` of the outputs and targets of one batch is differentiated at each step.
    3. To evaluate, the sums that `tally` returns for each batch are added up, and `measure` turns
       them into the metrics.

    `metrics` declares these; the first one is the loss, the last one is that by which final
    trainings are compared: it has a direction, and says how it is averaged and what a difference
    is. They are reported as `val_<name>` on validation images and as `test_<name>` on test images.
    """

    catalogue: ClassVar[Catalogue[Any]] = TASKS
    target: ClassVar[str] = "class"
    """Kind of target that a data set must have for each image."""

    def check_dataset(self, name: str) -> None:
        """Check that a data set serves this task.

        Raises:
            UserError: There is no such data set, or it does not have the targets.
        """
        has = DATASETS.find(name).targets
        if self.target not in has:
            raise UserError(
                f"data set {name!r} does not serve task {self.name!r}, which needs the target "
                f"{self.target!r} for each image: it has {', '.join(has)}"
            )

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """Declared metrics of an evaluation: first `loss`, last that of the final comparison."""

    @property
    def final(self) -> str:
        """Name of the metric by which final trainings are compared, such as `test_accuracy`."""
        return self.reported("test")[-1]

    def prepare(
        self, search: SearchData, final: FinalData, build: Build
    ) -> tuple[SearchData, FinalData]:
        """Return both views of the data with the targets of this task; by default unchanged.

        Args:
            search: Data that searches read.
            final: Data that the final protocol reads.
            build: Function that builds the host, for a task that needs another network.

        Raises:
            UserError: The data cannot serve this task.
        """
        return search, final

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean loss on a batch, to differentiate.

        Args:
            outputs: Outputs of the network, (B, K), in float32 or float64.
            targets: Targets of the batch, (B, ...).
            label_smoothing: Label smoothing of the training protocol, 0 to 1.
        """

    @abstractmethod
    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return sums over a batch, (S,) in float64 on the device, for `measure`.

        Args:
            outputs: Outputs of the network, (B, K), float32.
            targets: Targets of the batch, (B, ...).
        """

    @abstractmethod
    def measure(self, sums: list[float], count: int) -> dict[str, float]:
        """Return the metrics by name.

        Args:
            sums: Sums of `tally` over all batches.
            count: Number of images.
        """

    @abstractmethod
    def reward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return a controller's reward on a batch: 0 to 1, higher is better."""

    def reported(self, part: str) -> tuple[str, ...]:
        """Return the names under which the metrics are reported for a part of the data."""
        return tuple(f"{part}_{metric.name}" for metric in self.metrics)

    def metric(self, reported: str) -> Metric:
        """Return this task's metric of a reported name.

        Raises:
            UserError: The task has no such metric.
        """
        own = {metric.name: metric for metric in self.metrics}
        name = bare_name(reported)
        if name not in own:
            raise unknown_name(f"metric of task {self.name!r}", name, own)
        return own[name]

    def lost(self, part: str) -> dict[str, float]:
        """Return the metrics of a training that diverged, so that it is ranked last."""
        return {f"{part}_{metric.name}": metric.when_lost for metric in self.metrics}
