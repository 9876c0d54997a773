"""The results of a run for TensorBoard, taken from the run's tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tensorboard.plugins.hparams.summary_v2 import (
    Discrete,
    HParam,
    Metric,
    hparams_config_pb,
    hparams_pb,
)
from torch.utils.tensorboard import SummaryWriter

from sase_ray.analysis.anytime import band
from sase_ray.analysis.outcomes import OF_NETWORK, UNKNOWN, genotype_table
from sase_ray.figures.architecture import draw_alpha_course
from sase_ray.figures.block import draw_block
from sase_ray.figures.gradcam import draw_activations
from sase_ray.figures.tensorboard_images import pixels_of
from sase_ray.monitoring.tensorboard_live import (
    COMPARISON,
    COSTS,
    INCUMBENT,
    band_tags,
    incumbent_tag,
)
from sase_ray.results.rows import edges_of
from sase_ray.results.search_id import SearchId
from search_spaces.genotype import Genotype
from trainables.persistence.store import StorageError

DOTS_PER_INCH = 150

SELECTED_FOLDERS = 40
"""Number of folders above which TensorBoard's Custom Scalars and Images select none at first."""

GENOTYPES = 50
"""Number of rows of the HParams tab, each a folder, if there are too many folders anyway."""

OF_STRATEGY = (
    "difference", "p_holm", "search_samples", "search_seconds", "trials", *OF_NETWORK,
)  # fmt: skip
"""Columns of a strategy's row in the HParams tab, after its results on test images."""


def write_summaries(folder: Path) -> None:
    """Write bands, tests, answers, the HParams tab and panels into a run's TensorBoard logs.

    Args:
        folder: Folder of the run, with its tables; that of a single search has no final trainings.

    Raises:
        StorageError: They cannot be written.
    """
    try:
        _write(folder)
    except OSError as error:
        raise StorageError(f"{folder / 'tensorboard'} cannot be written: {error}") from None


def _write(folder: Path) -> None:
    tables = {path.stem: pd.read_parquet(path) for path in folder.glob("*.parquet")}
    logs = folder / "tensorboard"
    curves = tables["curves"]
    curves["search_trials"] = curves.groupby(["strategy", "seed"], group_keys=False)["trial"].apply(
        lambda trials: (~trials.duplicated()).cumsum()
    )
    for strategy, rows in curves.groupby("strategy"):
        with SummaryWriter(str(logs / str(strategy))) as writer:
            _write_bands(writer, rows)
    rankings = tables["rankings"].query("rank == 1")
    for answer in rankings.itertuples():
        with SummaryWriter(str(logs / str(SearchId.of(answer.strategy, answer.seed)))) as writer:
            _write_answer(writer, answer, tables)
    _write_hparams(logs, tables)
    if "gradcam" in tables:
        looks = tables["gradcam"]
        figure = draw_activations(
            looks, *(list(looks[key].unique()) for key in ("module", "image"))
        )
        with SummaryWriter(str(logs / COMPARISON)) as writer:
            _add_picture(writer, "looks/Grad-CAM on test images", figure)


def _write_bands(writer: SummaryWriter, curves: pd.DataFrame) -> None:
    for column in [name for name in curves if name.startswith(INCUMBENT)]:
        for cost in COSTS:
            tags = band_tags(cost, column.removeprefix(INCUMBENT))
            for step, *values in band(curves, f"search_{cost}", column).itertuples():
                for tag, value in zip(tags, values, strict=True):
                    writer.add_scalar(tag, value, int(step))


def _write_answer(writer: SummaryWriter, answer: Any, tables: Mapping[str, pd.DataFrame]) -> None:
    def of_search(table: str, name: str = "strategy") -> pd.DataFrame:
        rows = tables.get(table, pd.DataFrame(columns=[name, "seed"]))
        return rows[(rows[name] == answer.strategy) & (rows["seed"] == answer.seed)]

    _add_picture(writer, "modules found/block", draw_block(Genotype.parse(answer.genotype)))
    if len(alpha := of_search("alpha") if len(tables["alpha"]) else ()):
        _add_picture(writer, "operations/over samples", draw_alpha_course(alpha))
    finals = of_search("final", "name")
    if len(finals):
        end = of_search("curves").iloc[-1]
        for metric in [m for m in finals if str(m).startswith("test_") and finals[m].notna().any()]:
            for cost in COSTS:
                step = round(end[f"search_{cost}"])
                writer.add_scalar(incumbent_tag(cost, metric), finals[metric].mean(), step)


def _write_hparams(logs: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    rows = list(_strategy_rows(tables))
    folders = {event.parent for event in logs.rglob("events.*")}
    folders |= {logs / folder for folder in (COMPARISON, *(row[0] for row in rows))}
    rows += _genotype_rows(tables, max(0, SELECTED_FOLDERS - len(folders)) or GENOTYPES)
    values: dict[str, dict[str, None]] = {}
    for _, hparams, _ in rows:
        for name, value in hparams.items():
            values.setdefault(name, {})[value] = None
    metrics = sorted(
        {name for *_, results in rows for name in results},
        key=lambda name: (name in OF_STRATEGY, not name.startswith("test_"), name),
    )
    # The columns are declared once for all rows, as not all rows have the same.
    columns = hparams_config_pb(
        [HParam(name, Discrete([*of_name])) for name, of_name in values.items()],
        [Metric(f"result/{name}", display_name=name) for name in metrics],
    )
    with SummaryWriter(str(logs / COMPARISON)) as writer:
        writer.file_writer.add_summary(columns)
    for folder, hparams, results in rows:
        with SummaryWriter(str(logs / folder)) as writer:
            writer.file_writer.add_summary(hparams_pb(hparams, trial_id=folder))
            for name, result in results.items():
                writer.add_scalar(f"result/{name}", result, 0)


_HParamsRow = tuple[str, dict[str, str], dict[str, float]]
"""Folder, hyperparameters and metrics of a row of the HParams tab."""


def _strategy_rows(tables: Mapping[str, pd.DataFrame]) -> Iterator[_HParamsRow]:
    if "strategies" not in tables:
        return
    for row in tables["strategies"].to_dict("records"):
        baseline = row["family"] == "baseline"
        folder = f"baseline {row['name']}" if baseline else row["name"]
        columns = [name for name in row if name in OF_STRATEGY or name.startswith("test_")]
        yield folder, {"family": row["family"]}, _finite(row, columns)


def _genotype_rows(tables: Mapping[str, pd.DataFrame], count: int) -> Iterator[_HParamsRow]:
    table = genotype_table(tables["trials"], tables.get("final"))
    for rank, (text, row) in enumerate(table.head(count).iterrows(), start=1):
        hparams = {"family": "genotype", **edges_of(str(text))}
        columns = [name for name in row.index if name != UNKNOWN]
        yield f"genotypes/{rank:02d} {text}"[:200], hparams, _finite(row, columns)


def _finite(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, float]:
    return {name: float(row[name]) for name in names if name in row and np.isfinite(row[name])}


def _add_picture(writer: SummaryWriter, tag: str, figure: Figure | None) -> None:
    if figure is not None:
        figure.set_dpi(DOTS_PER_INCH)
    if (picture := pixels_of(figure)) is not None:
        writer.add_image(tag, picture, dataformats="HWC")
