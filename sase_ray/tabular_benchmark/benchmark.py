"""`TabularBenchmark`: an exhaustively trained space, whose scores are looked up, not trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sase_ray.statistics.variance_components import (
    VarianceComponents,
    genotype_correlation,
    mean_tau,
    variance_components,
)
from sase_ray.tabular_benchmark.file_format import (
    MOST_ROWS,
    Validity,
    described_space,
    no_table,
    read_benchmark,
)
from sase_ray.tabular_benchmark.noise_model import NoiseModel
from sase_ray.tabular_benchmark.worlds import Worlds, regrets
from search_spaces.errors import UserError, shorten, unknown_name
from search_spaces.genotype import Genotype
from search_spaces.user_paths import user_path
from trainables.metrics import find_metric

VALIDATION = ("val_loss", "val_accuracy")
TEST = {"val_loss": "test_loss", "val_accuracy": "test_accuracy"}
BUNDLED = Path(str(resources.files("sase_ray"))) / "tabular_benchmark" / "tables" / "digits.parquet"


@dataclass(frozen=True)
class TableEntry:
    """Scores of a genotype after an epoch.

    Attributes:
        val_loss: Cross-entropy on the validation images, in nats.
        val_accuracy: Accuracy on the same images, 0 to 1.
        samples: Number of training samples seen by then, without those of a warm host.
        seconds: Device-seconds of training and evaluation by then, without those of a warm host.
        diverged: Whether the training diverged; then the loss is infinite.
    """

    val_loss: float
    val_accuracy: float
    samples: int
    seconds: float
    diverged: bool


class TabularBenchmark:
    """Scores of every genotype of a space, trained by one proxy protocol, at every epoch.

    The first seed has every genotype; some genotypes have more seeds, from which the noise of a
    training is known.

    Args:
        rows: Rows with the columns `COLUMNS`; `test_loss` and `test_accuracy` only at the end of a
            training.
        about: Metadata: `config` (of the run that the rows come from), `samples_per_epoch`,
            `samples_of_host`, `hosts`; `validity` if it was measured (see `Validity`), and further
            facts.

    Raises:
        UserError: Rows of the first seed are missing.
    """

    def __init__(self, rows: pd.DataFrame, about: Mapping[str, Any]) -> None:
        self.rows = rows
        self.about = dict(about)
        self.space = described_space(self.about["space"])
        self.epochs = int(rows["epoch"].max()) if len(rows) else 0
        if self.space.size * self.epochs > MOST_ROWS:
            raise UserError(
                f"a table has at most {MOST_ROWS:,} rows, too few for {self.epochs:,} epochs of "
                f"space {shorten(self.space.name)!r}"
            )
        self.genotypes = tuple(str(g) for g in self.space)
        self._index = {text: i for i, text in enumerate(self.genotypes)}
        self._first = int(rows["seed"].min()) if len(rows) else 0
        own = rows[rows["seed"] == self._first]
        missing = len(set(self.genotypes) - set(own["genotype"]))
        if missing:
            raise UserError(f"the table is not complete: {missing:,} genotypes are missing")
        self._recorded = self._grid(own)
        seconds = own.pivot(index="genotype", columns="epoch", values="train_seconds")
        self._seconds = seconds.reindex(self.genotypes).ffill(axis=1).to_numpy(dtype=float)
        lengths = own.groupby("genotype")["epoch"].max().reindex(self.genotypes)
        self._length = lengths.to_numpy(dtype=int)

    @classmethod
    def load(cls, path: str | Path | None = None) -> TabularBenchmark:
        """Read a table that `sase-ray tabulate` wrote; without a path, the bundled one.

        Raises:
            UserError: There is no such file, or it is not such a table.
        """
        path = BUNDLED if path is None else user_path(path)
        rows, about = read_benchmark(path)
        try:
            return cls(rows, about)
        except UserError:
            raise
        except (LookupError, ValueError, TypeError, ArithmeticError) as error:
            raise no_table(path, error) from error

    @property
    def samples_per_epoch(self) -> int:
        """Number of training samples in one epoch of a genotype's training."""
        return int(self.about["samples_per_epoch"])

    @property
    def samples_of_host(self) -> int:
        """Number of training samples of the warm host that the trials start from."""
        return int(self.about["samples_of_host"])

    @property
    def seconds_of_host(self) -> float:
        """Device-seconds of the warm host's training, the mean over seeds."""
        hosts = self.about["hosts"].values()
        return float(np.mean([host["seconds"] for host in hosts])) if hosts else 0.0

    @property
    def validity(self) -> Validity | None:
        """Agreement of the table's ranking with the one that is wanted; None if not measured."""
        measured = self.about.get("validity")
        return None if measured is None else Validity.model_validate(measured)

    def lookup(
        self, genotype: Genotype | str, epoch: int | None = None, seed: int | None = None
    ) -> TableEntry:
        """Return the recorded scores of a genotype.

        Args:
            genotype: Genotype of the table's space.
            epoch: Number of epochs trained, from 1; the default is the last.
            seed: Seed of the training; the default is the first, which every genotype has.

        Raises:
            UserError: The genotype is not of the space, or the table has no such epoch or seed.
        """
        text = self._text(genotype)
        epoch = self._epoch(epoch)
        if seed is None or seed == self._first:
            return self._entry(
                self._index[text], epoch, self._recorded[self._index[text], epoch - 1]
            )
        rows = self.rows
        own = rows[(rows["genotype"] == text) & (rows["seed"] == seed) & (rows["epoch"] <= epoch)]
        if own.empty:
            seeds = sorted(int(s) for s in rows.loc[rows["genotype"] == text, "seed"].unique())
            raise UserError(f"{text} was trained with the seeds {seeds}, not with {seed}")
        last = own.sort_values("epoch").iloc[-1]
        return TableEntry(
            val_loss=float(last["val_loss"]),
            val_accuracy=float(last["val_accuracy"]),
            samples=int(last["epoch"]) * self.samples_per_epoch,
            seconds=float(last["train_seconds"]),
            diverged=bool(last["diverged"]),
        )

    def draw(
        self, genotype: Genotype | str, epoch: int | None = None, *, seed: int = 0
    ) -> TableEntry:
        """Draw another training of a genotype: a plausible truth and the noise of a training.

        Each seed stands for one world. The world's true scores are drawn so that they agree with
        all recorded scores and vary as much as the genotypes do; `regret` with the same seed uses
        them. The noise is that of a real training in one warm host, larger for genotypes that
        train worse, and drawn for all epochs at once (see `NoiseModel`). The same seed gives the
        same training.

        Args:
            genotype: Genotype of the table's space.
            epoch: Number of epochs trained, as for `lookup`.
            seed: Seed of the truth and of the noise.

        Raises:
            UserError: As for `lookup`; or the table has no genotype with several seeds.
        """
        index = self._index[self._text(genotype)]
        epoch = self._epoch(epoch)
        first = (epoch - 1) * len(VALIDATION)
        drawn = self._worlds.train(index, seed)[first : first + len(VALIDATION)]
        drawn[0] = max(drawn[0], 0.0)
        drawn[1] = min(max(drawn[1], 0.0), 1.0)
        lost = ~np.isfinite(self._recorded[index, epoch - 1])
        drawn[lost] = self._recorded[index, epoch - 1][lost]
        return self._entry(index, epoch, drawn)

    def truth(self, genotype: Genotype | str, metric: str = "val_loss") -> float:
        """Return the best linear prediction of a genotype's validation score without noise.

        All scores of all its trainings are used jointly (`NoiseModel`). The result is infinite (a
        loss) or 0 (an accuracy) if the training diverged.

        Raises:
            UserError: As for `draw`.
        """
        index, column = self._index[self._text(genotype)], VALIDATION.index(_metric(metric))
        predicted = self._model.predicted[index, (self.epochs - 1) * len(VALIDATION) + column]
        recorded = self._recorded[index, -1, column]
        return float(predicted if np.isfinite(self._recorded[index, -1, 0]) else recorded)

    def regret(
        self, genotype: Genotype | str, metric: str = "val_loss", *, seed: int | None = None
    ) -> float:
        """Return how much worse a genotype's true test score is than that of the best; 0 is best.

        The regret is in nats or, for accuracy, a share. A genotype whose training diverged counts
        as the worst of the others. The regret is for scoring the answers of searches; no search
        may read it.

        Args:
            genotype: Genotype of the table's space.
            metric: Validation metric that the test metric belongs to.
            seed: Seed of a world of `draw`, in which the truth is known. The default is the mean
                over all plausible truths or, if the noise is not known, the recorded regret.
        """
        index, metric = self._index[self._text(genotype)], _metric(metric)
        of_all = self._regrets(metric) if seed is None else self._worlds.regrets(metric, seed)
        return float(of_all[index])

    def mean_regret(self, metric: str = "val_loss") -> float:
        """Return the mean regret of all genotypes: the expected regret of a random pick."""
        return float(self._regrets(_metric(metric)).mean())

    def best(self, metric: str = "val_loss") -> str:
        """Return the genotype with the best recorded value of a validation metric."""
        scores = self._recorded[:, -1, VALIDATION.index(_metric(metric))]
        return self.genotypes[int(np.nanargmin(find_metric(metric).sign * scores))]

    def reliability(self, metric: str = "val_loss", epoch: int | None = None) -> VarianceComponents:
        """Return the variance components of the genotypes that were trained with all seeds.

        The scores are taken as they were recorded, on the scale of `sase-ray reliability`. `draw`
        uses another scale, on which every seed has the mean and the spread of the first.

        Raises:
            UserError: As for `draw`.
        """
        scores = self._repeated[:, :, self._epoch(epoch) - 1, VALIDATION.index(_metric(metric))]
        return variance_components(scores)

    def test_agreement(self, metric: str = "val_loss") -> float:
        """Return how well validation and test images agree on the genotypes.

        This is the correlation of the genotypes' effects on the two metrics, without the noise, on
        the scale of `reliability`; NaN if one of the metrics has no genotype effect.

        Raises:
            UserError: As for `draw`.
        """
        validation = self._repeated[:, :, -1, VALIDATION.index(_metric(metric))]
        return genotype_correlation(validation, self._tests(TEST[metric])[self._repeated_index])

    @property
    def repeated_genotypes(self) -> tuple[str, ...]:
        """Genotypes that were trained with all seeds.

        Raises:
            UserError: As for `draw`.
        """
        return tuple(self.genotypes[int(i)] for i in self._repeated_index)

    def seed_agreement(self, metric: str = "val_loss") -> float:
        """Return Kendall's tau of two trainings of the same genotypes, the mean over seeds.

        Raises:
            UserError: As for `draw`.
        """
        scores = self._repeated[:, :, -1, VALIDATION.index(_metric(metric))]
        return mean_tau(scores)

    def tells_apart(self, metric: str = "val_loss") -> bool:
        """Return whether the genotypes' regrets are known to differ at all."""
        return bool(np.ptp(self._regrets(_metric(metric))) > 0)

    @cached_property
    def _seeds(self) -> list[int]:
        """Return the seeds of the repeated genotypes, without a seed that was only begun."""
        counts = self.rows.groupby("seed")["genotype"].nunique()
        others = counts.drop(self._first)
        kept = others.index[others >= 0.9 * others.max()] if len(others) else []
        return [self._first, *(int(seed) for seed in kept)]

    @cached_property
    def _trained(self) -> NDArray[np.float64]:
        """Scores (genotype, seed, epoch, metric) of `_seeds`; NaN if there is none."""
        rows = self.rows
        return np.stack([self._grid(rows[rows["seed"] == seed]) for seed in self._seeds], axis=1)

    @cached_property
    def _scores(self) -> NDArray[np.float64]:
        """Array of all scores (genotype, seed, score): `VALIDATION` by epoch, then `TEST`."""
        curves = self._trained.reshape(*self._trained.shape[:2], -1)
        tests = np.stack([self._tests(column) for column in TEST.values()], axis=2)
        return np.concatenate([curves, tests], axis=2)

    @cached_property
    def _lost(self) -> NDArray[np.bool_]:
        """Mask of the genotypes whose first training does not end at finite scores."""
        ends = np.column_stack([self._recorded[:, -1, 0], self._tests("test_loss")[:, 0]])
        return np.asarray(~np.isfinite(ends).all(axis=1))

    @cached_property
    def _repeated_index(self) -> NDArray[np.int64]:
        """Indices of the genotypes that have all of `_seeds` and never diverged."""
        kept = np.flatnonzero(np.isfinite(self._scores).all(axis=(1, 2)))
        if len(self._seeds) < 2 or len(kept) < 2:
            raise UserError("the table has too few genotypes with several seeds to know its noise")
        return kept

    @property
    def _repeated(self) -> NDArray[np.float64]:
        """Scores (genotype, seed, epoch, metric) of the repeated genotypes."""
        return self._trained[self._repeated_index]

    def _tests(self, column: str) -> NDArray[np.float64]:
        """Return a test metric (genotype, seed) of `_seeds`; NaN if there is none."""
        ends = self.rows[self.rows[column].notna()]
        table = ends.pivot(index="genotype", columns="seed", values=column)
        return table.reindex(index=self.genotypes, columns=self._seeds).to_numpy(dtype=float)

    @cached_property
    def _model(self) -> NoiseModel:
        driver = (self.epochs - 1) * len(VALIDATION)  # the validation loss at the end
        return NoiseModel(self._scores, self._repeated_index, driver)

    @cached_property
    def _worlds(self) -> Worlds:
        tests = {metric: self.epochs * len(VALIDATION) + i for i, metric in enumerate(TEST)}
        return Worlds(self._model, tests, self._lost)

    def _regrets(self, metric: str) -> NDArray[np.float64]:
        """Return the expected regrets of all genotypes; if the noise is unknown, the recorded."""
        try:
            worlds = self._worlds
        except UserError:
            return regrets(self._tests(TEST[metric])[:, 0], metric, self._lost)
        return worlds.expected_regrets(metric)

    def _grid(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """Return scores (genotype, epoch, metric).

        After a training diverged, its last row is repeated; missing scores are NaN.
        """
        layers = [
            rows.pivot(index="genotype", columns="epoch", values=metric)
            .reindex(index=list(self.genotypes), columns=range(1, self.epochs + 1))
            .ffill(axis=1)
            .to_numpy(dtype=float)
            for metric in VALIDATION
        ]
        return np.stack(layers, axis=2)

    def _text(self, genotype: Genotype | str) -> str:
        return str(self.space.parse(genotype))

    def _epoch(self, epoch: int | None) -> int:
        epoch = self.epochs if epoch is None else epoch
        if epoch not in range(1, self.epochs + 1):
            raise UserError(f"the table has the epochs 1 to {self.epochs}, not {epoch!r}")
        return int(epoch)

    def _entry(self, index: int, epoch: int, scores: NDArray[np.float64]) -> TableEntry:
        loss, accuracy = (float(score) for score in scores)
        return TableEntry(
            val_loss=loss,
            val_accuracy=accuracy,
            samples=min(epoch, int(self._length[index])) * self.samples_per_epoch,
            seconds=float(self._seconds[index, epoch - 1]),
            diverged=not np.isfinite(loss),
        )


def _metric(metric: str) -> str:
    if metric not in TEST:
        raise unknown_name("metric", metric, TEST)
    return metric
