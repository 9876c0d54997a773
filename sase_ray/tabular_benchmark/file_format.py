"""Parquet file of a ground-truth table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, JsonValue, ValidationError

from search_spaces.errors import UserError, explain_validation_error, shorten
from search_spaces.space import SearchSpace
from trainables.persistence.store import write_whole

SCHEMA = pa.schema(
    [
        pa.field("genotype", pa.string(), nullable=False),
        pa.field("seed", pa.int16(), nullable=False),
        pa.field("epoch", pa.int16(), nullable=False),
        ("val_loss", pa.float32()),
        ("val_accuracy", pa.float32()),
        ("train_seconds", pa.float32()),
        pa.field("diverged", pa.bool_(), nullable=False),
        ("test_loss", pa.float32()),
        ("test_accuracy", pa.float32()),
    ]
)


COLUMNS = tuple(SCHEMA.names)


MOST_ROWS = 10_000_000
"""Maximum number of rows: a small compressed file may expand to more than fits into memory."""


_ABOUT = b"sase_ray"


class _Space(BaseModel):
    """Result of `describe_space`."""

    name: str
    sets: dict[str, list[str]]
    edges: dict[str, str]
    stages: int = Field(ge=1, le=100)
    source: str


class _Host(BaseModel):
    samples: int = Field(ge=0)
    seconds: float = Field(ge=0)


class Validity(BaseModel):
    """Agreement of a table's ranking of genotypes with the ranking that is wanted.

    Attributes:
        of: Score that validation scores were compared with, such as "test loss of the final
            protocol".
        tau: Kendall's tau of the two scores.
        p_value: Two-sided p-value of the hypothesis that there is no agreement.
        genotypes: Number of genotypes that were trained both ways.
    """

    of: str
    tau: float = Field(ge=-1, le=1)
    p_value: float = Field(ge=0, le=1)
    genotypes: int = Field(ge=2)


class _About(BaseModel):
    """Metadata that must accompany the rows of a table; there may be more."""

    config: dict[str, JsonValue]
    space: _Space
    samples_per_epoch: int = Field(ge=1, le=10**15)
    samples_of_host: int = Field(ge=0, le=10**15)
    hosts: dict[str, _Host]
    validity: Validity | None = None


def read_benchmark(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the rows of a table that `write_benchmark` wrote, complete or not, and `about`.

    Raises:
        UserError: There is no such file, or it is not such a table.
    """
    if not os.path.isfile(path):  # False, where Path.is_file fails, for a name that is too long
        raise UserError(f"there is no table {path}: make one with `sase-ray tabulate`")
    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows > MOST_ROWS:
                raise ValueError(f"it has more than {MOST_ROWS:,} rows")
            about = json.loads((file.schema_arrow.metadata or {})[_ABOUT])
            _About.model_validate(about)
            table = file.read(columns=list(COLUMNS)).select(COLUMNS).cast(SCHEMA)
        # The file's metadata on pandas' types cannot be trusted; the schema gives the types.
        return table.to_pandas(ignore_metadata=True), about
    except ValidationError as error:
        raise explain_validation_error(
            error, _About, f"{path} is not a table of sase-ray tabulate"
        ) from None
    # RecursionError: values are nested too deeply.
    except (pa.ArrowException, OSError, LookupError, ValueError, RecursionError) as error:
        raise no_table(path, error) from error


def no_table(path: Path, error: Exception) -> UserError:
    """Return the error for a file that is no ground-truth table."""
    why = f"{type(error).__name__}: {shorten(str(error))}"
    return UserError(f"{path} is not a table of sase-ray tabulate ({why})")


def write_benchmark(rows: pd.DataFrame, about: Mapping[str, Any], path: Path) -> None:
    """Write a table in a form that `TabularBenchmark.load` reads, atomically."""
    kept = rows.reindex(columns=list(COLUMNS)).sort_values(["seed", "genotype", "epoch"])
    table = pa.Table.from_pandas(kept, schema=SCHEMA, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), _ABOUT: json.dumps(about).encode()}
    table = table.replace_schema_metadata(metadata)
    write_whole(path, lambda partial: pq.write_table(table, partial, compression="zstd"))


def described_space(described: Mapping[str, Any]) -> SearchSpace:
    """Return the space of a table's metadata, without its operation files: nothing is built."""
    return SearchSpace(
        name=described["name"],
        sets={name: tuple(ops) for name, ops in described["sets"].items()},
        edges=described["edges"],
        stages=described["stages"],
        source=described["source"],
    )
