"""Copies of a run's files: what is copied where, and what is taken in place of the originals."""

import hashlib

import pytest

from search_spaces.errors import UserError
from trainables.persistence.kept_files import fetch_kept_files, keep_files, use_kept_files
from trainables.persistence.store import Store


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run" / "inputs").mkdir(parents=True)
    return tmp_path / "run"


@pytest.fixture
def values(tmp_path, run):
    (tmp_path / "host.pt").write_bytes(b"host")
    (run / "inputs" / "network.pt").write_bytes(b"network")
    (run / "inputs" / "images.npz").write_bytes(b"images")
    return {
        "dataset": "arrays",
        "data": {"root": str(run / "inputs"), "options": {"file": "images.npz"}},
        "host": {"weights": str(tmp_path / "host.pt")},
        "backbone": {
            "name": f"file:{run / 'inputs' / 'network.pt'}",
            "options": {"weights": "DEFAULT"},
        },
    }


def content(folder):
    return {path.name: path.read_bytes() for path in (folder / "inputs").iterdir()}


def test_files_are_copied_to_all_stores_with_their_digests(values, run, tmp_path):
    record = keep_files(values, [Store(run), Store(tmp_path / "storage")])
    assert set(record) == {"host.weights", "backbone.name", "data.root"}
    expected = {
        "host.weights-host.pt": b"host",
        "network.pt": b"network",
        "images.npz": b"images",
    }
    assert content(run) == content(tmp_path / "storage") == expected
    for entry in record.values():
        saved = (run / entry["file"]).read_bytes()
        assert hashlib.sha256(saved).hexdigest() == entry["sha256"]


def test_the_copies_are_used_wherever_the_run_is(values, run, tmp_path):
    record = keep_files(values, [Store(run), Store(tmp_path / "storage")])
    (tmp_path / "host.pt").unlink()
    moved = tmp_path / "moved"
    run.rename(moved)
    for folder in (moved, tmp_path / "fetched"):
        fetch_kept_files(record, Store(tmp_path / "storage"), folder)
        used = use_kept_files(values, record, folder)
        inputs = folder / "inputs"
        assert used["host"]["weights"] == str(inputs / "host.weights-host.pt")
        assert used["backbone"]["name"] == f"file:{inputs / 'network.pt'}"
        assert used["data"]["root"] == str(inputs)
        assert used["backbone"]["options"] == {"weights": "DEFAULT"}
    assert values["host"]["weights"] == str(tmp_path / "host.pt")
    (moved / "inputs" / "network.pt").write_bytes(b"other")
    with pytest.raises(UserError, match="not the file that the run was made with"):
        use_kept_files(values, record, moved)


def test_without_files_nothing_is_copied_or_used(run):
    values = {"data": {"root": "/", "options": {}}, "host": None, "backbone": {"name": "resnet8"}}
    assert keep_files(values, [Store(run)]) == {}
    assert content(run) == {}
    values = {"host": {"weights": "pretrained"}, "data": {"root": str(run), "options": {}}}
    assert keep_files(values, [Store(run)]) == {}


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        {"host.weights": "x"},
        {"host.weights": {"file": "inputs/../secret", "sha256": ""}},
        {"host.weights": {"file": "/etc/passwd", "sha256": ""}},
        {"host.weights": {"file": "inputs/..", "sha256": ""}},
        {"host.weights": {}},
        {"space": {"file": "inputs/network.pt", "sha256": ""}},
        {"backbone.options.other": {"file": "inputs/network.pt", "sha256": ""}},
    ],
)
def test_a_record_of_another_reaches_nothing_outside(record, values, run, tmp_path):
    (run / "secret").write_bytes(b"secret")
    assert use_kept_files(values, record, run) == values
    fetch_kept_files(record, Store(run), tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()
