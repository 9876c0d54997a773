"""TensorBoard's logs of a comparison: a folder a strategy and seed, so that curves overlay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from search_spaces.space import SearchSpace
from trainables.store import StorageError

Row = dict[str, Any]
INCUMBENT = {"incumbent_val_loss": "val_loss", "incumbent_val_accuracy": "val_accuracy"}


class TensorBoardLogs:
    """Writes evaluations as they come, and what a strategy came to at the end.

    Tags: ``incumbent over samples/<metric>`` and ``incumbent over seconds/<metric>`` (the metric
    of the best genotype so far, or of the supernet itself for a one-shot search), and
    ``alpha <edge>/<operation>`` (probabilities over samples).

    Args:
        folder: the logs' folder.
        space: names the operations of alpha.
    """

    def __init__(self, folder: Path, space: SearchSpace) -> None:
        self.folder = folder
        self.space = space
        self._writers: dict[str, SummaryWriter] = {}

    def log_evaluation(self, strategy: str, seed: int, row: Row) -> None:
        """Log one evaluation of a search.

        Raises:
            StorageError: it cannot be written.
        """
        with self._told():
            self._log(self._writer(f"{strategy}/seed{seed}"), row)

    def _log(self, writer: SummaryWriter, row: Row) -> None:
        for key, metric in INCUMBENT.items():
            value = row[key]
            writer.add_scalar(f"incumbent over samples/{metric}", value, row["search_samples"])
            seconds = round(row["search_seconds"])
            writer.add_scalar(f"incumbent over seconds/{metric}", value, seconds)
        choices = {variable.name: variable.choices for variable in self.space.variables}
        for name, probabilities in row.get("alpha", {}).items():
            for op, probability in zip(choices[name], probabilities, strict=True):
                writer.add_scalar(f"alpha {name}/{op}", probability, row["search_samples"])
        writer.flush()

    def log_result(
        self,
        name: str,
        hparams: Mapping[str, str | int | float],
        metrics: Mapping[str, float],
    ) -> None:
        """Log what a strategy or baseline came to, for the HParams tab.

        Raises:
            StorageError: it cannot be written.
        """
        with self._told(), SummaryWriter(str(self.folder / name)) as writer:
            plain = {f"final/{key}": float(value) for key, value in metrics.items()}
            writer.add_hparams(dict(hparams), plain, run_name=".")

    def close(self) -> None:
        """Finish all files; every evaluation is in them already."""
        for writer in self._writers.values():
            with suppress(OSError):
                writer.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"{self.folder} cannot be written: {error}") from None

    def _writer(self, name: str) -> SummaryWriter:
        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self.folder / name))
        return self._writers[name]
