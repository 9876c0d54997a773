"""`load_run`: typed frames of whatever a run has written, and one sentence for what it has not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from sase_ray import load_run
from sase_ray.report import write_report
from sase_ray.results import load
from sase_ray.results.schema import TABLES, describe_columns
from search_spaces.errors import UserError

REFERENCE = Path(__file__).parents[3] / "results" / "reference"
TYPES = {
    "text": pd.api.types.is_string_dtype,
    "count": lambda dtype: dtype == np.int64,
    "number": lambda dtype: dtype == np.float64,
    "truth": lambda dtype: dtype == np.bool_,
    "bytes": lambda dtype: dtype == np.object_,
}


@pytest.fixture
def copied(tmp_path):
    """A copy of the reference run, to damage."""
    return Path(shutil.copytree(REFERENCE / "fashion_mnist", tmp_path / "run"))


def check_types(run):
    for name, columns in TABLES.items():
        frame = getattr(run, name)
        assert list(frame)[: len(columns)] == list(columns)
        for column, described in columns.items():
            # Text of an empty table has pandas' object type before version 3.
            empty_text = frame.empty and described.kind == "text"
            assert empty_text or TYPES[described.kind](frame[column].dtype), (name, column)


def test_the_reference_run_comes_as_it_was_written():
    run = load_run(REFERENCE / "fashion_mnist")
    check_types(run)
    assert run.name == "fashion_mnist"
    assert run.config["dataset"] == "fashion_mnist"
    for path in (REFERENCE / "fashion_mnist").glob("*.parquet"):
        written = pd.read_parquet(path)
        read = getattr(run, path.stem)[list(written)]
        pd.testing.assert_frame_equal(
            read, written.fillna({"reason": "", "genotype": ""}), check_dtype=False
        )
    assert run.trials["channel_squeeze"].ne("").any()
    assert run.agreement.empty


def test_a_run_that_has_only_begun_has_empty_tables(copied):
    for path in copied.glob("*.parquet"):
        path.unlink()
    run = load_run(copied)
    check_types(run)
    assert run.trials.empty


def test_a_run_of_another_task_that_has_only_begun_has_the_columns_of_its_metrics(copied):
    path = copied / "config.yaml"
    recorded = yaml.safe_load(path.read_text())
    recorded["config"] |= {"task": "distillation", "metric": "val_agreement"}
    path.write_text(yaml.safe_dump(recorded))
    for file in copied.glob("*.parquet"):
        file.unlink()
    run = load_run(copied)
    assert "test_normalised_error" in {*run.strategies} & {*run.final}, "it compares finals"
    assert "test_agreement" in run.final
    assert {"val_agreement", "incumbent_val_agreement"} <= {*run.curves}
    assert write_report([copied], "md").is_file()


def test_a_table_without_rows_and_columns_is_empty(copied):
    pd.DataFrame().to_parquet(copied / "alpha.parquet")
    check_types(load_run(copied))


def test_columns_that_are_not_needed_may_lack_and_others_are_passed_on(copied):
    trials = pd.read_parquet(copied / "trials.parquet").drop(columns=["reason", "val_loss"])
    trials.assign(**{"stage0.channel_squeeze": "gap", "nested": [[1]] * len(trials)}).to_parquet(
        copied / "trials.parquet"
    )
    run = load_run(copied)
    check_types(run)
    assert run.trials["val_loss"].isna().all()
    assert set(run.trials["reason"]) == {""}
    assert set(run.trials["stage0.channel_squeeze"]) == {"gap"}
    assert "nested" not in run.trials


def test_every_column_is_documented():
    for name in TABLES:
        described = describe_columns(name)
        assert described["meaning"].str.len().min() > 2
        assert not described["meaning"].str.contains("\n").any()


def refused(folder, match):
    with pytest.raises(UserError, match=match) as refusal:
        load_run(folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("path", ["nowhere", "a" * 5000, "a\0b", ""])
def test_no_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(path, "there is no run|no config.yaml")


def test_another_kind_of_folder(tmp_path):
    refused(tmp_path, "it has no config.yaml")
    refused(REFERENCE / "table_digits", "comparison on a ground-truth table")


@pytest.mark.parametrize(
    "text", ["", "[1]", "config: 5", "run: {}", "config: {}\nversions: 3", "{"]
)
def test_a_configuration_that_no_run_has_written(text, copied):
    (copied / "config.yaml").write_text(text)
    refused(copied, "config.yaml")


def test_an_object_of_python_in_the_configuration_is_not_made(copied):
    (copied / "config.yaml").write_text(
        "config: !!python/object/apply:os.mkdir [" + str(copied / "made") + "]"
    )
    refused(copied, "not valid YAML")
    assert not (copied / "made").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.drop(columns="seed"), "column 'seed' is missing"),
        (lambda t: t.assign(seed="first"), "first"),
        (lambda t: t.assign(seed=0.5), "trials"),
        (lambda t: t.assign(strategy=5), "'strategy' holds int64, expected text"),
        (lambda t: t.assign(strategy=None), "'strategy' has empty cells"),
        (lambda t: t.assign(genotype=[[1]] * len(t)), "'genotype' holds list"),
        (lambda t: t.assign(genotype="g" * 10_001), "more than 10,000 characters"),
        (lambda t: t.assign(val_loss="low"), "low"),
    ],
)
def test_a_table_of_other_columns(change, match, copied):
    change(pd.read_parquet(copied / "trials.parquet")).to_parquet(copied / "trials.parquet")
    refused(copied, match)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"strategy,seed\n", os.urandom(2000)])
def test_a_file_that_is_no_table(content, copied):
    (copied / "trials.parquet").write_bytes(content)
    refused(copied, r"trials.parquet is not the table 'trials' of a run")


def test_two_columns_of_one_name(copied):
    table = pq.read_table(copied / "trials.parquet")
    table = pa.Table.from_arrays([*table.columns, table["seed"]], [*table.column_names, "seed"])
    pq.write_table(table, copied / "trials.parquet")
    refused(copied, "same name")


def test_a_table_larger_than_memory(copied, monkeypatch):
    monkeypatch.setattr(load, "MOST_BYTES", 1000)
    refused(copied, "more than 0 MiB")
    monkeypatch.setattr(load, "MOST_ROWS", 5)
    refused(copied, "more than 5 rows")


def test_the_configuration_of_a_run_is_plain_yaml(copied):
    recorded = load_run(copied).recorded
    assert recorded.config == yaml.safe_load((copied / "config.yaml").read_text())["config"]
