"""Loading of a run's tables as typed frames. Reading them never executes code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from sase_ray.results.schema import ARROW, TABLES, Column
from search_spaces.errors import UserError, explain_validation_error, shorten
from search_spaces.user_files import read_yaml_mapping
from search_spaces.user_paths import user_path

if TYPE_CHECKING:
    from trainables.tasks.contract import Task

MOST_ROWS = 2_000_000
MOST_BYTES = 2**30
"""Largest table in memory; a small compressed file may expand to more."""
LONGEST_TEXT = 10_000
_BATCH = 4096


class Recorded(BaseModel):
    """The content of a run's config.yaml.

    Attributes:
        config: Configuration, with the keys of `Config` (of the version that wrote it).
        run: Record of the run: `started`, `splits` with their digest, seeds, and more.
        versions: Versions of Python and packages.
        git: Commit of the code.
        hardware: Hardware of the cluster.
    """

    config: dict[str, Any]
    run: dict[str, Any] = {}
    versions: dict[str, str] = {}
    git: str | None = None
    hardware: dict[str, Any] = {}


@dataclass(frozen=True)
class Run:
    """The tables of a run; those not (yet) written are empty frames with the same columns.

    `sase_ray.results.schema.describe_columns("trials")` describes a table's columns.

    Attributes:
        path: Folder of the run.
        recorded: Content of its config.yaml.
        strategies: One row per strategy or baseline, best mean final result first.
        final: One row per final training.
        searches: One row per search.
        trials: One row per trial.
        curves: One row per evaluation.
        alpha: One row per point of time, edge and operation of a one-shot search.
        rankings: One row per genotype that a search has ranked.
        agreement: One row per one-shot search.
        recovery: One row per search for a planted module.
        gradcam: One row per module and test image.
    """

    path: Path
    recorded: Recorded
    strategies: pd.DataFrame
    final: pd.DataFrame
    searches: pd.DataFrame
    trials: pd.DataFrame
    curves: pd.DataFrame
    alpha: pd.DataFrame
    rankings: pd.DataFrame
    agreement: pd.DataFrame
    recovery: pd.DataFrame
    gradcam: pd.DataFrame

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as it was written."""
        return self.recorded.config

    def __repr__(self) -> str:
        rows = ", ".join(f"{name}: {len(getattr(self, name))}" for name in TABLES)
        return f"Run({self.name!r}, rows of {rows})"


def load_run(path: str | Path) -> Run:
    """Read the tables of a run that has ended or is under way.

    Args:
        path: Folder of the run, `results/<run>`.

    Raises:
        UserError: There is no run, or one of its files is not what a run writes.
    """
    folder = user_path(path)
    shown = shorten(str(path))
    if not os.path.isdir(folder):  # False, where Path.is_dir fails, for a name that is too long
        raise UserError(f"there is no run {shown}: expected a folder such as results/<run>")
    recorded = _read_recorded(folder)
    if "table" in recorded.run:
        raise UserError(
            f"{shown} is a comparison on a ground-truth table, without trainings of its own: its "
            f"figure is regret.png, its tables are regret.parquet and strategies.csv"
        )
    own = _columns_of(task_in(recorded.config))
    tables = {
        name: read_table(folder / f"{name}.parquet", name, own.get(name, {})) for name in TABLES
    }
    return Run(folder.resolve(), recorded, **tables)


def task_in(config: Mapping[str, Any]) -> Task:
    """Return the task of a run's configuration; classification if its own is not installed."""
    from trainables.tasks.catalogue import make_task  # torch is slow to import
    from trainables.tasks.classification import CLASSIFICATION

    name, options = config.get("task"), config.get("task_options")
    try:
        return make_task(str(name), options if isinstance(options, dict) else None)
    except UserError:
        return CLASSIFICATION


def _columns_of(task: Task) -> dict[str, dict[str, Column]]:
    """Return the columns with the metrics of a task, by table."""
    number = Column("number", "metric of the task", needed=False)
    validation = dict.fromkeys(task.reported("val"), number)
    incumbent = {f"incumbent_{name}": number for name in validation}
    return {
        "strategies": {task.final: number},
        "final": dict.fromkeys(task.reported("test"), number),
        "trials": validation,
        "curves": validation | incumbent,
    }


def _read_recorded(folder: Path) -> Recorded:
    path = folder / "config.yaml"
    if not os.path.isfile(path):
        raise UserError(f"{shorten(str(folder))} is not the folder of a run: it has no config.yaml")
    content = read_yaml_mapping(path, "run")
    try:
        return Recorded.model_validate(content)
    except ValidationError as error:
        raise explain_validation_error(
            error, Recorded, f"{path} was not written by a run"
        ) from None


def read_table(path: Path, name: str, also: Mapping[str, Column]) -> pd.DataFrame:
    """Read one table of a run; a missing one is empty.

    Args:
        path: Path of the parquet file.
        name: Name of the table, one of `TABLES`.
        also: Columns that it has in addition to those of `TABLES`.

    Raises:
        UserError: It is not such a table.
    """
    columns = {**TABLES[name], **{k: v for k, v in also.items() if k not in TABLES[name]}}
    if not os.path.isfile(path):
        return _empty(columns)
    try:
        return _typed(_read_bounded(path), columns)
    # RecursionError: raised for values nested too deeply.
    except (pa.ArrowException, OSError, LookupError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not the table {name!r} of a run ({shorten(str(error))})"
        ) from None


def _read_bounded(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        if file.metadata.num_rows > MOST_ROWS:
            raise ValueError(f"it has more than {MOST_ROWS:,} rows")
        batches, size = [], 0
        for batch in file.iter_batches(batch_size=_BATCH):
            size += batch.nbytes
            if size > MOST_BYTES:
                raise ValueError(f"it holds more than {MOST_BYTES // 2**20:,} MiB")
            batches.append(batch)
        return pa.Table.from_batches(batches, file.schema_arrow)


def _typed(table: pa.Table, columns: Mapping[str, Column]) -> pd.DataFrame:
    if not table.num_rows:
        return _empty(columns)
    if len(set(table.column_names)) < table.num_columns:
        raise ValueError("two of its columns have the same name")
    arrays = {name: _cast(table, name, column) for name, column in columns.items()}
    for field in table.schema:
        if field.name not in columns and _is_plain(field.type):
            arrays[field.name] = table[field.name]
    # The file's own notes for pandas are not trusted; the columns define the types.
    return pa.table(arrays).to_pandas(ignore_metadata=True)


def _cast(table: pa.Table, name: str, column: Column) -> pa.ChunkedArray:
    kind = ARROW[column.kind]
    if name not in table.column_names:
        if column.needed:
            raise ValueError(f"column {name!r} is missing")
        values = pa.chunked_array([pa.nulls(table.num_rows, kind)])
    else:
        values = table[name]
        wrong = column.kind in {"text", "bytes"} and not (
            pa.types.is_null(values.type) or _same_family(values.type, kind)
        )
        if wrong:
            raise ValueError(f"column {name!r} holds {values.type}, expected {column.kind}")
        values = values.cast(kind)
    if column.needed and values.null_count:
        raise ValueError(f"column {name!r} has empty cells")
    if column.kind == "text":
        values = pc.fill_null(values, "")
        if (pc.max(pc.utf8_length(values)).as_py() or 0) > LONGEST_TEXT:
            raise ValueError(f"column {name!r} has texts of more than {LONGEST_TEXT:,} characters")
    elif column.kind == "truth":
        values = pc.fill_null(values, False)
    return values


def _same_family(found: pa.DataType, kind: pa.DataType) -> bool:
    is_text = pa.types.is_string(found) or pa.types.is_large_string(found)
    is_bytes = pa.types.is_binary(found) or pa.types.is_large_binary(found)
    return is_text if pa.types.is_string(kind) else is_bytes


def _is_plain(kind: pa.DataType) -> bool:
    return (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
    )


def _empty(columns: Mapping[str, Column]) -> pd.DataFrame:
    schema = pa.schema([(name, ARROW[column.kind]) for name, column in columns.items()])
    return schema.empty_table().to_pandas(ignore_metadata=True)
