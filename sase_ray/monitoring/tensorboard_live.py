"""TensorBoard's logs of a run under way, one folder per strategy and seed to overlay curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from sase_ray.execution.observer import Observer
from sase_ray.figures.tensorboard_images import draw_alpha, pixels_of
from sase_ray.results.history import Row, SearchOutcome
from sase_ray.results.search_id import SearchId
from search_spaces.space import SearchSpace
from trainables.persistence.store import StorageError

PROGRESS_SECONDS = 5.0
"""Interval at which the progress of the run is logged."""

INCUMBENT = "incumbent_"
"""Prefix of the columns with the metrics of a search's incumbent."""

COSTS = ("samples", "seconds", "trials")
"""Horizontal axes of curves: training samples, device-seconds, trials that have reported."""

COLLAPSE = ("entropy", "dominant_eigenvalue", "poor_share", "discretisation_gap")
"""Signs of a one-shot search's collapse, for the strategies that report them."""

COMPARISON = "comparison"
PROGRESS = "progress"
"""Folders of what belongs to no strategy: the charts' layout and panels; the run's progress."""


def incumbent_tag(cost: str, metric: str) -> str:
    """Return the tag of the metric of a search's incumbent."""
    return f"incumbent over {cost}/{metric}"


def band_tags(cost: str, metric: str) -> tuple[str, str, str]:
    """Return the tags of the mean, the lowest and the highest over a strategy's seeds."""
    mean, low, high = (f"seeds over {cost}/{metric} {what}" for what in ("mean", "low", "high"))
    return mean, low, high


class TensorBoardLogs(Observer):
    """Observer that writes evaluations as they arrive.

    TensorBoard's first page shows tags in alphabetical order: they are named so that it begins
    with the incumbents.

    Tags, in the folder ``<strategy>/seed<seed>``:

    - ``incumbent over <cost>/<metric>``: the metric of the best genotype so far, or of the
      supernet itself for a one-shot search; the step is the cost.
    - ``probability <edge>/<operation>`` and ``signs of collapse/<sign>``, over samples, of a
      one-shot search.
    - ``operations/<edge>``, the probabilities as a histogram over epochs, and
      ``operations/probabilities``, the same as an image at epochs 1, 2, 4 and so on.

    The folder `progress` has ``progress/<number>`` over seconds. The result of the run is written
    by `sase_ray.monitoring.tensorboard_summary`.

    Args:
        space: Search space, which names the operations of alpha.
        metrics: Names of the metrics that incumbents may have.
        progress: Returns the seconds since the run began, and its progress as numbers by name.
    """

    def __init__(
        self,
        space: SearchSpace,
        metrics: Sequence[str],
        progress: Callable[[], tuple[float, Mapping[str, float]]],
    ) -> None:
        self.metrics = metrics
        self.choices = {variable.name: variable.choices for variable in space.variables}
        self.progress = progress
        self._progress_logged = -PROGRESS_SECONDS
        self._writers: dict[str, SummaryWriter] = {}
        self._trials: dict[SearchId, set[str]] = {}

    def run_began(self, folder: Path) -> None:
        """Write the layout of the charts.

        Raises:
            StorageError: It cannot be written.
        """
        self.folder = folder / "tensorboard"
        with self._storage(), SummaryWriter(str(self.folder / COMPARISON)) as writer:
            writer.add_custom_scalars(_layout(list(self.choices), self.metrics))

    def evaluated(self, search: SearchId, row: Row) -> None:
        """Log one evaluation of a search.

        Raises:
            StorageError: It cannot be written.
        """
        trials = self._trials.setdefault(search, set())
        trials.add(row["trial"])
        steps = (row["search_samples"], round(row["search_seconds"]), len(trials))
        with self._storage():
            self._log(self._writer(str(search)), row, steps)

    def search_recalled(self, search: SearchId, outcome: SearchOutcome) -> None:
        """Log all evaluations of a search.

        Raises:
            StorageError: They cannot be written.
        """
        for row in outcome.history.evaluations:
            self.evaluated(search, row)

    def _log(self, writer: SummaryWriter, row: Row, steps: tuple[int, int, int]) -> None:
        for key in [key for key in row if key.startswith(INCUMBENT)]:
            for cost, step in zip(COSTS, steps, strict=True):
                tag = incumbent_tag(cost, key.removeprefix(INCUMBENT))
                writer.add_scalar(tag, row[key], step)
        for sign in COLLAPSE:
            if row.get(sign) is not None:
                writer.add_scalar(f"signs of collapse/{sign}", row[sign], row["search_samples"])
        if row.get("alpha"):
            self._log_alpha(writer, row)
        writer.flush()

    def _log_alpha(self, writer: SummaryWriter, row: Row) -> None:
        alpha, epoch = row["alpha"], row["epoch"]
        for edge, probabilities in alpha.items():
            for op, probability in zip(self.choices[edge], probabilities, strict=True):
                tag = f"probability {edge}/{op}"
                writer.add_scalar(tag, probability, row["search_samples"])
            if np.isfinite(
                probabilities
            ).all():  # those of a search that diverged may not be finite
                writer.add_histogram(f"operations/{edge}", np.asarray(probabilities), epoch)
        if epoch.bit_count() == 1 or row["finished"]:  # at 1, 2, 4, ..., as a drawing takes 0.1 s
            picture = pixels_of(draw_alpha(alpha, self.choices))
            if picture is not None:
                writer.add_image("operations/probabilities", picture, epoch, dataformats="HWC")

    def tick(self, last: bool) -> None:
        """Log the progress of the run if the last time was a while ago.

        Raises:
            StorageError: It cannot be written.
        """
        seconds, numbers = self.progress()
        if not last and seconds - self._progress_logged < PROGRESS_SECONDS:
            return
        self._progress_logged = seconds
        with self._storage():
            writer = self._writer(PROGRESS)
            for name, value in numbers.items():
                writer.add_scalar(f"progress/{name}", value, round(seconds))
            writer.flush()

    def run_ended(self) -> None:
        """Close all files; every evaluation is already in them."""
        for writer in self._writers.values():
            with suppress(OSError):
                writer.close()

    @contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"{self.folder} cannot be written: {error}") from None

    def _writer(self, name: str) -> SummaryWriter:
        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self.folder / name))
        return self._writers[name]


def _layout(edges: Sequence[str], metrics: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """Return the custom charts, in which a line of tags is a regular expression."""
    pairs = [(metric, cost) for metric in metrics for cost in COSTS]
    return {
        "strategies: mean of the seeds, lowest and highest (at the end of the run)": {
            f"{metric} over {cost}": ["Margin", list(band_tags(cost, metric))]
            for metric, cost in pairs
        },
        "every search: the incumbent": {
            f"{metric} over {cost}": ["Multiline", [f"^{incumbent_tag(cost, metric)}$"]]
            for metric, cost in pairs
        },
        "one-shot searches: probability of every operation": {
            edge: ["Multiline", [f"^probability {edge}/"]] for edge in edges
        },
        "one-shot searches: signs of collapse": {
            sign: ["Multiline", [f"^signs of collapse/{sign}$"]] for sign in COLLAPSE
        },
    }
