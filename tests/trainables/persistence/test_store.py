"""Pieces of a store are whole or absent, in a folder as in any of pyarrow's file systems."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys

import pytest

from trainables.persistence.store import StorageError, Store


@pytest.fixture(params=["folder", "uri"])
def store(request, tmp_path):
    place = tmp_path / "in" / "it"
    return Store(place if request.param == "folder" else place.as_uri())


def test_what_is_written_is_read_again_wherever_the_store_is_handed(store):
    assert store.names() == []
    assert store.read("a") is None
    store.write("a", b"one")
    store.write("a", b"two")
    store.at("below", "it").write("b", b"three")
    elsewhere = pickle.loads(pickle.dumps(store))
    assert elsewhere.names() == ["a"]
    assert elsewhere.read("a") == b"two"
    assert elsewhere.at("below").read("it/b") == b"three"
    elsewhere.at("below").remove()
    assert store.at("below", "it").names() == []
    elsewhere.remove("a")
    elsewhere.remove("a")  # it is gone already
    assert store.names() == []


def test_an_object_store_is_one_too(monkeypatch):
    """Pyarrow's own stand-in has folders, but neither renames nor needs them."""
    store = Store("mock://bucket/run")
    store.write("config.yaml", b"x")
    assert store.read("config.yaml") == b"x"
    assert store.names() == ["config.yaml"]


KILLED = """
import os, signal, sys
from trainables.persistence.store import Store

store = Store(sys.argv[1])
store.write("a", b"old")

os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
store.write("a", b"new")
"""


def test_a_process_that_dies_in_the_middle_of_a_write_leaves_what_was_there(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2, "it died after the new piece was written"
    store = Store(tmp_path)
    assert store.names() == ["a"]
    assert store.read("a") == b"old"
    store.write("a", b"new")
    assert store.read("a") == b"new"


def test_a_full_or_read_only_disk_is_told_and_what_was_there_stays(small_disk):
    folder, make_read_only = small_disk
    store = Store(folder)
    store.write("a", b"1" * 1000)
    with pytest.raises(StorageError, match=r"disk/a cannot be written: .*No space left on device"):
        store.write("a", b"2" * 100_000)
    assert store.read("a") == b"1" * 1000
    assert store.names() == ["a"]
    assert [p.name for p in folder.iterdir()] == ["a"], "the half file is gone"
    make_read_only()
    with pytest.raises(StorageError, match=r"cannot be written: .*Read-only file system"):
        store.write("b", b"3")
    assert store.read("a") == b"1" * 1000


def test_a_place_of_an_unknown_kind_is_refused():
    with pytest.raises(StorageError, match="storage 'ftq://x' cannot be used"):
        Store("ftq://x")
