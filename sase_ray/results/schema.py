"""The tables of a run: their columns, types and meanings, as `load_run` returns them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import pyarrow as pa

from search_spaces.genotype import EDGES

Kind = Literal["text", "count", "number", "truth", "bytes"]

ARROW: Mapping[Kind, pa.DataType] = {
    "text": pa.string(),
    "count": pa.int64(),
    "number": pa.float64(),
    "truth": pa.bool_(),
    "bytes": pa.binary(),
}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        kind: Type of the values: text (str), count (int64), number (float64), truth (bool), or
            bytes.
        meaning: Meaning of the values, with their unit.
        needed: Whether a table is invalid without the column, or with an empty cell in it. A column
            that is not needed is filled in where it is missing: empty text, NaN, or False.
    """

    kind: Kind
    meaning: str
    needed: bool = True


def _maybe(kind: Kind, meaning: str) -> Column:
    return Column(kind, meaning, needed=False)


_STRATEGY = Column("text", "name of the strategy")
_SEED = Column("count", "seed of the search")
_RESULT = {
    "train_seconds": _maybe("number", "device-seconds of the training"),
    "train_loss": _maybe("number", "cross-entropy on the training images, nats"),
}
_PROXY = {
    "genotype": _maybe("text", "text form; empty where none is known"),
    "epoch": _maybe("number", "epoch of the trial, from 1"),
    "samples": _maybe("number", "training samples that the trial has seen"),
    **_RESULT,
    "val_loss": _maybe("number", "cross-entropy on the validation images, nats"),
    "val_accuracy": _maybe("number", "accuracy on the validation images, 0 to 1"),
    "diverged": _maybe("truth", "whether the training diverged"),
    "reason": _maybe("text", "why it diverged or failed"),
}
_COST = {
    "parameters": Column("number", "parameters of the whole network"),
    "macs": Column("number", "multiply-accumulates of the whole network on one image"),
    "latency_ms": Column(
        "number", "milliseconds of a forward pass of 32 images, measured where the run was"
    ),
}
_MEMORY = _maybe("number", "largest memory of a search, MiB")

TABLES: Mapping[str, Mapping[str, Column]] = {
    "strategies": {
        "name": Column("text", "strategy or baseline"),
        "family": Column("text", "black-box, one-shot, baseline, ..."),
        "test_accuracy": _maybe(
            "number",
            "mean of the final trainings on test images, 0 to 1; another task has its own metric, "
            "of which some have geometric means",
        ),
        "ci_low": _maybe("number", "lower end of its 95% interval over independent searches"),
        "ci_high": _maybe("number", "upper end of the same interval"),
        "units": Column("count", "independent searches (or final trainings of one) behind it"),
        "search_samples": Column("number", "training samples of a search, mean"),
        "search_seconds": Column("number", "device-seconds of a search, mean"),
        "trials": Column("number", "trials of a search, mean"),
        **_COST,
        "genotypes": Column("text", "answers of its searches, joined by spaces"),
        "difference": _maybe(
            "number",
            "result less that of random search, paired, mean; the ratio where means are geometric",
        ),
        "p_value": _maybe(
            "number",
            "p of the paired t-test against random search, of logarithms where means are geometric",
        ),
        "p_holm": _maybe("number", "the same after Holm's correction"),
        "significant": _maybe("truth", "whether that is below 0.05"),
        "peak_memory_mib": _MEMORY,
    },
    "final": {
        "name": Column("text", "strategy or baseline"),
        "family": Column("text", "as in strategies"),
        "seed": _SEED,
        "final_seed": Column("count", "seed of the final training"),
        "module": Column("text", "genotype, or name of the baseline"),
        "diverged": _maybe("truth", "whether the training diverged"),
        "reason": _maybe("text", "why it diverged or failed"),
        **_RESULT,
        "test_loss": _maybe("number", "cross-entropy on the test images, nats"),
        "test_accuracy": _maybe("number", "accuracy on the test images, 0 to 1"),
        "samples": _maybe("number", "training samples of the final training"),
        **_COST,
    },
    "searches": {
        "strategy": _STRATEGY,
        "seed": _SEED,
        "genotype": Column("text", "its answer"),
        "samples": Column("number", "training samples that it has seen"),
        "seconds": Column("number", "device-seconds that it has held"),
        "trials": Column("count", "trials that it has begun"),
        "peak_memory_mib": _MEMORY,
        "entropy": _maybe("number", "entropy of alpha at the end, mean of edges, 1 is uniform"),
        "travel": _maybe(
            "number", "mean distance of architecture parameters from their start; one-shot"
        ),
        "travel_max": _maybe("number", "the largest of these distances; one-shot"),
    },
    "trials": {
        "strategy": _STRATEGY,
        "family": Column("text", "as in strategies"),
        "seed": _SEED,
        "trial": Column("text", "name of the trial"),
        **_PROXY,
        "status": Column("text", "finished, stopped (early), diverged, or failed"),
        **{edge: _maybe("text", f"operation of the edge {edge}") for edge in EDGES},
    },
    "curves": {
        "strategy": _STRATEGY,
        "seed": _SEED,
        "trial": Column("text", "name of the trial"),
        **_PROXY,
        "search_samples": Column("number", "training samples of the whole search by then"),
        "search_seconds": Column("number", "device-seconds of the whole search by then"),
        "incumbent": _maybe("text", "best genotype by then"),
        "incumbent_val_loss": _maybe("number", "its val_loss; of a one-shot search the supernet's"),
        "incumbent_val_accuracy": _maybe("number", "its val_accuracy, in the same way"),
        "entropy": _maybe("number", "entropy of alpha, mean over edges, 1 is uniform; one-shot"),
        "dominant_eigenvalue": _maybe(
            "number", "largest one of the validation loss's Hessian in alpha; one-shot"
        ),
        "poor_share": _maybe("number", "probability of operations poor in parameters; one-shot"),
        "discretisation_gap": _maybe(
            "number",
            "val_loss of the genotype with the supernet's weights less the supernet's; one-shot",
        ),
        "travel": _maybe("number", "distance of architecture parameters by then, as in searches"),
        "travel_max": _maybe("number", "the largest of these distances by then"),
        "shown_channels": _maybe(
            "number", "channels that operations see of the narrowest block; partial channels"
        ),
    },
    "alpha": {
        "strategy": _STRATEGY,
        "seed": _SEED,
        "search_samples": Column("number", "training samples of the search by then"),
        "variable": Column("text", "edge, or stageN.edge"),
        "operation": Column("text", "one of the edge's operations"),
        "probability": Column("number", "probability of the operation, 0 to 1"),
    },
    "rankings": {
        "strategy": _STRATEGY,
        "seed": _SEED,
        "rank": Column("count", "1 is the search's answer"),
        "genotype": Column("text", "text form"),
        "score": _maybe("number", "score by which it was ranked"),
        "score_is": Column("text", "meaning of the score, and whether lower is better"),
    },
    "agreement": {
        "strategy": _STRATEGY,
        "seed": _SEED,
        "tau": _maybe("number", "Kendall's tau of its own ranking with stand-alone results"),
        "low": _maybe("number", "lower end of its 95% interval"),
        "high": _maybe("number", "upper end"),
        "genotypes": Column("count", "genotypes that were ranked"),
    },
    "recovery": {
        "strategy": _STRATEGY,
        "seed": _SEED,
        "plant": Column("text", "planted genotype that the search was to find"),
        "genotype": Column("text", "its answer"),
        "recovered": Column("count", "edges of the answer that are the plant's"),
        "edges": Column("count", "edges of a genotype"),
        "chance": Column("number", "edges that blind guessing recovers, mean"),
        "which": _maybe("text", "recovered edges, joined by spaces"),
        "rank": _maybe("number", "rank of the plant in the search's ranking, 1 is first"),
        "ranked": Column("count", "genotypes in that ranking"),
        "error": _maybe(
            "number", "test normalised error of the answer, geometric mean of final trainings"
        ),
        "plant_error": _maybe("number", "the same of the planted genotype"),
        "excess": _maybe("number", "their difference"),
    },
    "gradcam": {
        "module": Column("text", "name of a strategy or baseline"),
        "genotype": _maybe("text", "genotype of a strategy"),
        "seed": _SEED,
        "image": Column("count", "index among the test images"),
        "label": Column("count", "the image's class"),
        "predicted": Column("count", "class that the network predicts"),
        "height": Column("count", "height in pixels"),
        "width": Column("count", "width in pixels"),
        "channels": Column("count", "channels: 1 (grey) or 3 (red, green, blue)"),
        "pixels": Column("bytes", "uint8, height x width x channels, row by row"),
        "cam": Column("bytes", "uint8, height x width, 0 to 255"),
    },
}
"""Every table that a run may have (`<name>.parquet`), with its columns.

`trials` of a space with one block per stage has `stageN.edge` in place of the edges. Columns that
are not named here are passed on if they hold texts, numbers or truth values.
"""


def describe_columns(table: str) -> pd.DataFrame:
    """Return the documentation of a table: `column`, `kind`, `meaning`, `needed`.

    Raises:
        KeyError: A run has no such table.
    """
    rows = [(name, c.kind, c.meaning, c.needed) for name, c in TABLES[table].items()]
    return pd.DataFrame(rows, columns=["column", "kind", "meaning", "needed"])
