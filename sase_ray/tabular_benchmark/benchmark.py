"""`TabularBenchmark`: a space trained exhaustively, to look genotypes up in instead of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from sase_ray.statistics.variance_components import (
    VarianceComponents,
    genotype_correlation,
    on_first_scale,
    variance_components,
    without_noise,
)
from sase_ray.tabular_benchmark.file_format import MOST_ROWS, no_table, read_benchmark
from search_spaces.errors import UserError, shorten, unknown_name
from search_spaces.genotype import Genotype
from search_spaces.space import SearchSpace

VALIDATION = ("val_loss", "val_accuracy")
TEST = {"val_loss": "test_loss", "val_accuracy": "test_accuracy"}
BUNDLED = Path(str(resources.files("sase_ray"))) / "tabular_benchmark" / "tables" / "digits.parquet"


@dataclass(frozen=True)
class TableEntry:
    """What a genotype came to after an epoch.

    Attributes:
        val_loss: cross-entropy on the validation images, in nats.
        val_accuracy: on the same, 0 to 1.
        samples: training samples seen by then, those of a warm host not included.
        seconds: device-seconds of training and evaluation by then, likewise.
        diverged: whether the training was lost; then the loss is infinite.
    """

    val_loss: float
    val_accuracy: float
    samples: int
    seconds: float
    diverged: bool


class TabularBenchmark:
    """Every genotype of a space, trained by one proxy protocol, at every epoch.

    The first seed has every genotype; some genotypes have more seeds, from which the noise of a
    training is known.

    Args:
        rows: columns `COLUMNS`; `test_loss` and `test_accuracy` at a training's end only.
        about: `config` (of the run it comes from), `samples_per_epoch`, `samples_of_host`,
            `hosts`, and what else there is to tell.

    Raises:
        UserError: rows of the first seed are missing.
    """

    def __init__(self, rows: pd.DataFrame, about: Mapping[str, Any]) -> None:
        self.rows = rows
        self.about = dict(about)
        self.space = _space(self.about["space"])
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
            UserError: there is no such file, or it is not such a table.
        """
        path = BUNDLED if path is None else Path(path)
        rows, about = read_benchmark(path)
        try:
            return cls(rows, about)
        except UserError:
            raise
        except (LookupError, ValueError, TypeError, ArithmeticError) as error:
            raise no_table(path, error) from error

    @property
    def samples_per_epoch(self) -> int:
        """Training samples that one epoch of a genotype's training sees."""
        return int(self.about["samples_per_epoch"])

    @property
    def samples_of_host(self) -> int:
        """Training samples of the warm host that the trials start from."""
        return int(self.about["samples_of_host"])

    @property
    def seconds_of_host(self) -> float:
        """Device-seconds of the same, the mean over seeds."""
        hosts = self.about["hosts"].values()
        return float(np.mean([host["seconds"] for host in hosts])) if hosts else 0.0

    def lookup(
        self, genotype: Genotype | str, epoch: int | None = None, seed: int | None = None
    ) -> TableEntry:
        """Return what was recorded.

        Args:
            genotype: of the table's space.
            epoch: after how many epochs, from 1; the default is the last.
            seed: which training; the default is the first, which every genotype has.

        Raises:
            UserError: the genotype is not of the space, or the table has no such epoch or seed.
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
        """Return what another training would come to: the truth and a draw of the noise.

        The truth (see `truth`) has the genotypes' measured spread. The noise is that of a real
        training, taken from the genotypes that were trained with several seeds, over all epochs
        at once, so that a lucky start stays lucky. The same seed gives a genotype the same noise.

        Args:
            genotype: of the table's space.
            epoch: as for `lookup`.
            seed: of the noise.

        Raises:
            UserError: as for `lookup`; or the table has no genotype with several seeds.
        """
        index = self._index[self._text(genotype)]
        epoch = self._epoch(epoch)
        noise = self._noise
        if not isinstance(seed, int) or seed < 0:
            raise UserError(f"seed is 0, 1, 2, ..., not {seed!r}")
        pick = int(np.random.default_rng((seed, index)).integers(len(noise)))
        drawn = self._true[index, epoch - 1] + noise[pick, epoch - 1]
        drawn[0] = max(drawn[0], 0.0)
        drawn[1] = min(max(drawn[1], 0.0), 1.0)
        return self._entry(index, epoch, drawn)

    def truth(self, genotype: Genotype | str, metric: str = "val_loss") -> float:
        """Return a genotype's validation score without noise, as far as the table knows it.

        What was recorded holds the noise of its trainings. It is averaged over the seeds that the
        genotype has, and drawn in towards the mean of all so far that genotypes spread as much as
        their variance component says.

        Raises:
            UserError: as for `draw`.
        """
        index = self._index[self._text(genotype)]
        return float(self._true[index, -1, VALIDATION.index(_metric(metric))])

    def test(self, genotype: Genotype | str, metric: str = "val_loss") -> float:
        """Return the test metric that belongs to a validation metric, at a training's end.

        Noise is taken out as in `truth` where the table knows it; else it is what was recorded.
        For judging what a search has found; no search may read it.
        """
        return float(self._test[TEST[_metric(metric)]][self._index[self._text(genotype)]])

    def regret(self, genotype: Genotype | str, metric: str = "val_loss") -> float:
        """Return how far a genotype's `test` is from the best of the table; 0 is best.

        In nats or, for accuracy, in shares. A genotype whose training was lost counts as the worst
        of the others. For judging only, as `test`.
        """
        return float(self._regrets[_metric(metric)][self._index[self._text(genotype)]])

    def mean_regret(self, metric: str = "val_loss") -> float:
        """Return the mean regret of all genotypes: that of a blind pick."""
        return float(self._regrets[_metric(metric)].mean())

    def best(self, metric: str = "val_loss") -> str:
        """Return the genotype that was recorded best by a validation metric."""
        scores = self._recorded[:, -1, VALIDATION.index(_metric(metric))]
        order = np.nanargmin(scores) if metric == "val_loss" else np.nanargmax(scores)
        return self.genotypes[int(order)]

    def reliability(self, metric: str = "val_loss", epoch: int | None = None) -> VarianceComponents:
        """Return the variance components of the genotypes that were trained with all seeds.

        On the scale of the first seed: every seed is given its mean and spread.

        Raises:
            UserError: as for `draw`.
        """
        scores = self._repeated[:, :, self._epoch(epoch) - 1, VALIDATION.index(_metric(metric))]
        return variance_components(scores)

    def test_agreement(self, metric: str = "val_loss") -> float:
        """Return how far genotypes that are better on validation images are so on test images.

        The correlation of the genotypes' effects, both free of noise; NaN where one has none.

        Raises:
            UserError: as for `draw`.
        """
        validation = self._repeated[:, :, -1, VALIDATION.index(_metric(metric))]
        return genotype_correlation(validation, self._repeated_tests(metric))

    @property
    def repeated_genotypes(self) -> tuple[str, ...]:
        """The genotypes that were trained with all seeds.

        Raises:
            UserError: as for `draw`.
        """
        return tuple(self.genotypes[int(i)] for i in self._repeated_index)

    def seed_agreement(self, metric: str = "val_loss") -> float:
        """Return Kendall's tau of two trainings of the same genotypes, the mean over seeds.

        Raises:
            UserError: as for `draw`.
        """
        scores = self._repeated[:, :, -1, VALIDATION.index(_metric(metric))]
        pairs = combinations(scores.T, 2)
        return float(np.mean([stats.kendalltau(a, b).statistic for a, b in pairs]))

    def tells_apart(self, metric: str = "val_loss") -> bool:
        """Return whether the genotypes' regrets differ at all, as far as the table knows."""
        return bool(np.ptp(self._regrets[_metric(metric)]) > 0)

    @cached_property
    def _seeds(self) -> list[int]:
        """The seeds that the repeated genotypes share; one that was begun only is left out."""
        counts = self.rows.groupby("seed")["genotype"].nunique()
        others = counts.drop(self._first)
        kept = others.index[others >= 0.9 * others.max()] if len(others) else []
        return [self._first, *(int(seed) for seed in kept)]

    @cached_property
    def _trained(self) -> NDArray[np.float64]:
        """Scores (genotype, seed, epoch, metric) of `_seeds`; NaN where there are none."""
        rows = self.rows
        return np.stack([self._grid(rows[rows["seed"] == seed]) for seed in self._seeds], axis=1)

    @cached_property
    def _grids(self) -> NDArray[np.float64]:
        """The same on the scale of the first seed."""
        return on_first_scale(self._trained, self._repeated_index)

    @cached_property
    def _repeated_index(self) -> NDArray[np.int64]:
        """The genotypes that have all of `_seeds` and never diverged."""
        kept = np.flatnonzero(np.isfinite(self._trained).all(axis=(1, 2, 3)))
        if len(self._seeds) < 2 or len(kept) < 2:
            raise UserError("the table has too few genotypes with several seeds to know its noise")
        return kept

    @property
    def _repeated(self) -> NDArray[np.float64]:
        """Scores (genotype, seed, epoch, metric) of the repeated genotypes."""
        return self._grids[self._repeated_index]

    def _repeated_tests(self, metric: str) -> NDArray[np.float64]:
        index = self._repeated_index
        return on_first_scale(self._tests(TEST[metric]), index)[index]

    def _tests(self, column: str) -> NDArray[np.float64]:
        """A test metric (genotype, seed) of `_seeds`; NaN where there is none."""
        ends = self.rows[self.rows[column].notna()]
        table = ends.pivot(index="genotype", columns="seed", values=column)
        return table.reindex(index=self.genotypes, columns=self._seeds).to_numpy(dtype=float)

    @cached_property
    def _noise(self) -> NDArray[np.float64]:
        """Residual curves (draw, epoch, metric), scaled to the size of the residual variance."""
        scores = self._repeated
        genotypes, seeds = scores.shape[:2]
        mean = scores.mean(axis=(0, 1), keepdims=True)
        rest = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0, keepdims=True)
        freedom = (genotypes - 1) * (seeds - 1) / (genotypes * seeds)
        return ((rest + mean) / freedom**0.5).reshape(-1, *scores.shape[2:])

    @cached_property
    def _true(self) -> NDArray[np.float64]:
        """Scores (genotype, epoch, metric), the noise taken out; lost trainings stay lost."""
        index = self._repeated_index
        true = self._recorded.copy()
        for epoch in range(self.epochs):
            for i in range(len(VALIDATION)):
                true[:, epoch, i] = without_noise(self._grids[:, :, epoch, i], index)
        lost = ~np.isfinite(self._recorded)
        true[lost] = self._recorded[lost]
        return true

    @cached_property
    def _test(self) -> dict[str, NDArray[np.float64]]:
        """Test metrics of all genotypes, the noise taken out where it is known."""
        recorded = {column: self._tests(column) for column in TEST.values()}
        try:
            index = self._repeated_index
        except UserError:
            return {column: scores[:, 0] for column, scores in recorded.items()}
        return {
            column: without_noise(on_first_scale(scores, index), index)
            for column, scores in recorded.items()
        }

    @cached_property
    def _regrets(self) -> dict[str, NDArray[np.float64]]:
        lost = ~np.isfinite(self._recorded[:, -1, 0])
        lost |= ~np.isfinite(self._tests("test_loss")[:, 0])
        regrets = {}
        for metric, column in TEST.items():
            test = self._test[column] * (1 if metric == "val_loss" else -1)
            regret = test - test[~lost].min()
            regret[lost] = regret[~lost].max()
            regrets[metric] = regret
        return regrets

    def _grid(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """Scores (genotype, epoch, metric); a lost training keeps its last row, absent is NaN."""
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


def _space(described: Mapping[str, Any]) -> SearchSpace:
    # Without its operation files: looking up builds no operation.
    return SearchSpace(
        name=described["name"],
        sets={name: tuple(ops) for name, ops in described["sets"].items()},
        edges=described["edges"],
        stages=described["stages"],
        source=described["source"],
    )
