"""`TabularBenchmark`: a space trained exhaustively, to look genotypes up in instead of training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sase_ray.reliability import VarianceComponents, variance_components
from search_spaces.errors import UserError
from search_spaces.genotype import Genotype
from search_spaces.space import SearchSpace

COLUMNS = (
    "genotype",
    "seed",
    "epoch",
    "val_loss",
    "val_accuracy",
    "train_seconds",
    "diverged",
    "test_loss",
    "test_accuracy",
)
VALIDATION = ("val_loss", "val_accuracy")
TEST = {"val_loss": "test_loss", "val_accuracy": "test_accuracy"}
BUNDLED = Path(str(resources.files("sase_ray"))) / "tables" / "digits.parquet"
_ABOUT = b"sase_ray"


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
        first = int(rows["seed"].min())
        own = rows[rows["seed"] == first]
        self.epochs = int(rows["epoch"].max())
        self.genotypes = tuple(str(g) for g in self.space)
        self._index = {text: i for i, text in enumerate(self.genotypes)}
        missing = len(self.genotypes) - own["genotype"].nunique()
        if missing:
            raise UserError(f"the table is not complete: {missing:,} genotypes are missing")
        self._recorded = self._grid(own)
        self._seconds = own.pivot(index="genotype", columns="epoch", values="train_seconds")
        self._seconds = self._seconds.reindex(self.genotypes).ffill(axis=1)
        ends = own.sort_values("epoch").groupby("genotype").last().reindex(self.genotypes)
        self._test = ends[list(TEST.values())].astype(float)

    @classmethod
    def load(cls, path: str | Path | None = None) -> TabularBenchmark:
        """Read a table that `sase-ray tabulate` wrote; without a path, the bundled one.

        Raises:
            UserError: there is no such file, or it is not such a table.
        """
        path = Path(path) if path else BUNDLED
        if not path.is_file():
            raise UserError(f"there is no table {path}: make one with `sase-ray tabulate`")
        try:
            table = pq.read_table(path)
            about = json.loads((table.schema.metadata or {})[_ABOUT])
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise UserError(
                f"{path} is not a table of sase-ray tabulate ({type(error).__name__}: {error})"
            ) from error
        return cls(table.to_pandas(), about)

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
        if seed is None:
            return self._entry(text, epoch, self._recorded[self._index[text], epoch - 1])
        rows = self.rows
        own = rows[(rows["genotype"] == text) & (rows["seed"] == seed) & (rows["epoch"] <= epoch)]
        if own.empty:
            seeds = sorted(int(s) for s in rows.loc[rows["genotype"] == text, "seed"].unique())
            raise UserError(f"{text} was trained with the seeds {seeds}, not with {seed}")
        return self._entry(text, epoch, own.iloc[-1][list(VALIDATION)].to_numpy(dtype=float))

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
        text = self._text(genotype)
        epoch = self._epoch(epoch)
        index = self._index[text]
        value = self._true[index, epoch - 1]
        noise = self._noise
        pick = int(np.random.default_rng((seed, index)).integers(len(noise)))
        drawn = value + noise[pick, epoch - 1]
        drawn[0] = max(drawn[0], 0.0)
        drawn[1] = min(max(drawn[1], 0.0), 1.0)
        return self._entry(text, epoch, drawn)

    def truth(self, genotype: Genotype | str, metric: str = "val_loss") -> float:
        """Return a genotype's score without noise, as far as the table knows it.

        What was recorded holds the noise of one training. It is drawn in towards the mean so far
        that genotypes spread as much as their variance component says.

        Raises:
            UserError: as for `draw`.
        """
        index = self._index[self._text(genotype)]
        return float(self._true[index, -1, VALIDATION.index(metric)])

    def test(self, genotype: Genotype | str, metric: str = "val_loss") -> float:
        """Return the test metric that belongs to a validation metric, recorded at the end.

        For judging what a search has found; no search may read it.
        """
        return float(self._test.at[self._text(genotype), TEST[metric]])

    def regret(self, genotype: Genotype | str, metric: str = "val_loss") -> float:
        """Return how far a genotype's test metric is from the best of the table; 0 is best.

        In nats or, for accuracy, in shares. For judging only, as `test`.
        """
        return float(self._regrets(metric)[self._text(genotype)])

    def mean_regret(self, metric: str = "val_loss") -> float:
        """Return the mean regret of the genotypes that did not diverge: that of a blind pick."""
        regrets = self._regrets(metric)
        return float(regrets[np.isfinite(regrets)].mean())

    def best(self, metric: str = "val_loss") -> str:
        """Return the genotype that was recorded best by a validation metric."""
        scores = self._recorded[:, -1, VALIDATION.index(metric)]
        order = np.nanargmin(scores) if metric == "val_loss" else np.nanargmax(scores)
        return self.genotypes[int(order)]

    def _regrets(self, metric: str) -> pd.Series:
        test = self._test[TEST[metric]]
        return test - test.min() if metric == "val_loss" else test.max() - test

    def reliability(self, metric: str = "val_loss", epoch: int | None = None) -> VarianceComponents:
        """Return the variance components of the genotypes that were trained with all seeds.

        Raises:
            UserError: as for `draw`.
        """
        scores = self._repeated[:, :, self._epoch(epoch) - 1, VALIDATION.index(metric)]
        return variance_components(scores)

    @cached_property
    def _repeated(self) -> NDArray[np.float64]:
        """Scores (genotype, seed, epoch, metric) of genotypes with all seeds, none diverged."""
        seeds = sorted(self.rows["seed"].unique())
        grids = np.stack([self._grid(self.rows[self.rows["seed"] == s]) for s in seeds], axis=1)
        kept = np.isfinite(grids).all(axis=(1, 2, 3))
        if len(seeds) < 2 or kept.sum() < 2:
            raise UserError("the table has too few genotypes with several seeds to know its noise")
        return grids[kept]

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
        """The recorded scores (genotype, epoch, metric), drawn in to the genotypes' spread."""
        shrunk = self._recorded.copy()
        finite = np.isfinite(shrunk).all(axis=(1, 2))
        for epoch in range(self.epochs):
            for i, metric in enumerate(VALIDATION):
                icc = self.reliability(metric, epoch + 1).icc()
                values = shrunk[finite, epoch, i]
                shrunk[finite, epoch, i] = values.mean() + icc**0.5 * (values - values.mean())
        return shrunk

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
        if not 1 <= epoch <= self.epochs:
            raise UserError(f"the table has the epochs 1 to {self.epochs}, not {epoch}")
        return epoch

    def _entry(self, text: str, epoch: int, scores: NDArray[np.float64]) -> TableEntry:
        loss, accuracy = (float(score) for score in scores)
        return TableEntry(
            val_loss=loss,
            val_accuracy=accuracy,
            samples=epoch * self.samples_per_epoch,
            seconds=float(self._seconds.at[text, epoch]),
            diverged=not np.isfinite(loss),
        )


def describe_space(space: SearchSpace) -> dict[str, Any]:
    """Return a space as a table records it; operation files are not needed to look up."""
    return {
        "name": space.name,
        "sets": {name: list(ops) for name, ops in space.sets.items()},
        "edges": dict(space.edges),
        "stages": space.stages,
        "source": space.source,
    }


def _space(described: Mapping[str, Any]) -> SearchSpace:
    sets = {name: tuple(ops) for name, ops in described["sets"].items()}
    return SearchSpace(**{**described, "sets": sets})


def write_benchmark(rows: pd.DataFrame, about: Mapping[str, Any], path: Path) -> None:
    """Write a table in a form that `TabularBenchmark.load` reads, whole or not at all."""
    kept = rows.reindex(columns=list(COLUMNS)).sort_values(["seed", "genotype", "epoch"])
    kept = kept.astype(
        {
            "seed": "int16",
            "epoch": "int16",
            **dict.fromkeys(("val_loss", "test_loss", "train_seconds"), "float32"),
            **dict.fromkeys(("val_accuracy", "test_accuracy"), "float32"),
        }
    )
    table = pa.Table.from_pandas(kept, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), _ABOUT: json.dumps(about).encode()}
    partial = path.with_name(f".{path.name}.partial")
    try:
        pq.write_table(table.replace_schema_metadata(metadata), partial, compression="zstd")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
