"""The observers that a command passes to a run: the screen and TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console

from sase_ray.console import make_console
from sase_ray.execution.experiment import Experiment
from sase_ray.execution.observer import Observer
from sase_ray.monitoring.tensorboard_live import TensorBoardLogs
from sase_ray.monitoring.terminal import Display


@dataclass(frozen=True)
class Monitors:
    """The screen and TensorBoard of a run.

    Attributes:
        display: Progress in the terminal.
        logs: TensorBoard's logs, which also hold the numbers of the display.
    """

    display: Display
    logs: TensorBoardLogs

    @classmethod
    def of(
        cls, experiment: Experiment, console: Console | None = None, *, finals: bool = False
    ) -> Monitors:
        """Return the monitors of a run.

        Args:
            experiment: Experiment that is run.
            console: Console for progress; standard output if None.
            finals: Whether final trainings follow the searches.
        """
        config = experiment.config
        modules = len(config.strategies) + len(config.baselines)
        display = Display(
            console or make_console(),
            experiment.searches,
            config.budget,
            experiment.metrics,
            finals=modules * config.seeds * config.final.seeds if finals else 0,
            final_samples=config.final.epochs * len(experiment.problem.final_data.train),
        )
        of_task = config.make_task().reported("val")
        metrics = list(dict.fromkeys((*of_task, *experiment.metrics.values())))
        logs = TensorBoardLogs(experiment.problem.space, metrics, display.progress)
        return cls(display, logs)

    def __iter__(self) -> Iterator[Observer]:
        yield from (self.display, self.logs)
