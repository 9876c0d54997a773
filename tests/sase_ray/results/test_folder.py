"""The folder of a run: whole files or none, and what its configuration tells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pandas as pd
import pytest
import ray
import torch
import yaml

from sase_ray.config import load_config
from sase_ray.results import environment
from sase_ray.results import folder as results
from sase_ray.results.folder import RunFolder, check_new
from search_spaces.errors import UserError
from tests.patience import PATIENCE
from trainables.persistence.store import StorageError


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    return RunFolder(path)


def test_a_table_is_written_and_read_back(folder):
    rows = [{"a": 1, "b": "x"}, {"a": 2, "c": None}]
    frame = folder.write_table("t", rows, csv=True)
    pd.testing.assert_frame_equal(pd.read_parquet(folder.path / "t.parquet"), frame)
    assert pd.read_csv(folder.path / "t.csv")["a"].tolist() == [1, 2]
    assert folder.write_table("empty", []).empty
    assert sorted(p.name for p in folder.path.iterdir()) == ["empty.parquet", "t.csv", "t.parquet"]


def test_an_error_in_the_middle_of_a_write_leaves_the_old_file(folder, monkeypatch):
    folder.write_table("t", [{"a": 1}])

    def half(self, path, **options):
        path.write_bytes(b"PAR1 half")
        raise OSError("no space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", half)
    for name in ("t", "other"):
        with pytest.raises(StorageError, match="no space left"):
            folder.write_table(name, [{"a": 2}])
    assert [p.name for p in folder.path.iterdir()] == ["t.parquet"]
    assert pd.read_parquet(folder.path / "t.parquet")["a"].tolist() == [1]


KILLED = """
import os, signal, sys
from pathlib import Path
import pandas as pd
from sase_ray.results.folder import RunFolder

folder = RunFolder(Path(sys.argv[1]))
folder.write_table("t", [{"a": 1}])

def half(self, path, **options):
    path.write_bytes(b"PAR1 half")
    os.kill(os.getpid(), signal.SIGKILL)

pd.DataFrame.to_parquet = half
folder.write_table(sys.argv[2], [{"a": 2}])
"""


@pytest.mark.slow
def test_a_process_killed_in_the_middle_of_a_write_leaves_the_old_file(folder):
    for name in ("t", "other"):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(folder.path), name],
            cwd=os.getcwd(),
            timeout=PATIENCE,
        )
        assert done.returncode == -signal.SIGKILL
    assert [p.name for p in folder.path.glob("*.parquet")] == ["t.parquet"]
    assert pd.read_parquet(folder.path / "t.parquet")["a"].tolist() == [1]


def test_an_existing_folder_is_refused(tmp_path):
    config = load_config(overrides={"results": str(tmp_path), "run": "mine"})
    RunFolder.create(config)
    (tmp_path / "mine" / "strategies.csv").write_text("precious")
    with pytest.raises(UserError, match="mine exists: choose another --run"):
        RunFolder.create(config)
    with pytest.raises(UserError, match="exists"):
        check_new(tmp_path / "mine")
    assert (tmp_path / "mine" / "strategies.csv").read_text() == "precious"


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    config = load_config(overrides={"results": str(tmp_path / "file"), "run": "mine"})
    with pytest.raises(UserError, match="cannot be made"):
        RunFolder.create(config)


def test_a_run_that_its_storage_does_not_take_leaves_nothing(small_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "hardware", dict)
    disk, make_read_only = small_disk
    make_read_only()
    config = load_config(
        overrides={"results": str(tmp_path / "results"), "run": "mine", "storage": str(disk)}
    )
    folder = RunFolder.create(config)
    folder.lock()
    with pytest.raises(StorageError, match="Read-only file system"):
        folder.begin(config, {})
    assert not folder.path.exists(), "the name is free again"
    with pytest.raises(StorageError, match="cannot be used"):
        RunFolder.create(config.model_copy(update={"storage": "ftq://x"}))
    assert not folder.path.exists()


def test_a_run_in_a_folder_that_cannot_be_written_is_one_sentence(small_disk):
    disk, make_read_only = small_disk
    make_read_only()
    with pytest.raises(StorageError, match=r"disk/run cannot be written: .*Read-only file system"):
        RunFolder(disk / "run").lock()


def test_a_run_without_a_name_is_named_by_data_set_and_time(tmp_path):
    folder = RunFolder.create(load_config(overrides={"results": str(tmp_path / "new")}))
    assert folder.path.parent == tmp_path / "new"
    assert folder.path.name.startswith("digits-2")


def test_the_configuration_is_written_with_all_that_the_numbers_depend_on(folder, monkeypatch):
    monkeypatch.setattr(environment.ray, "nodes", lambda: [])
    config = load_config(overrides={"seeds": 4, "strategy_options": {"darts": {"clip": 1.5}}})
    folder.write_config(config, {"splits": {"test": 360}, "seeds": [0, 1]})
    path = folder.path / "config.yaml"
    written = yaml.safe_load(path.read_text())
    assert load_config(path) == config
    assert written["run"]["splits"] == {"test": 360}
    assert torch.__version__.startswith(written["versions"]["torch"])
    assert written["versions"]["ray"] == ray.__version__
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    if commit.returncode == 0:
        assert written["git"].startswith(commit.stdout.strip())
    assert written["hardware"]["processor"]
