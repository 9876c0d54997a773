"""Checkpoints are whole or absent, and never run code."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import pytest
import torch

from trainables.persistence.checkpoint import Checkpoints, load_state, save_state
from trainables.persistence.store import Store


def test_what_is_saved_is_loaded_again(tmp_path, assert_same):
    state = {
        "weights": {"a": torch.randn(3, 4), "n": torch.tensor(7)},
        "alpha": [torch.rand(2), torch.rand(3, dtype=torch.float64)],
        "epoch": 3,
        "seconds": 0.25,
        "text": "gap",
        "nothing": None,
    }
    save_state(state, tmp_path)
    assert_same(load_state(tmp_path), state)


def test_a_write_that_breaks_off_leaves_the_earlier_checkpoint(tmp_path):
    class Broken:
        def __reduce__(self):
            raise RuntimeError("the disk is full")

    save_state({"epoch": 1}, tmp_path)
    with pytest.raises(RuntimeError, match="disk is full"):
        save_state({"epoch": 2, "broken": Broken()}, tmp_path)
    assert load_state(tmp_path) == {"epoch": 1}


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("owned",))

    save_state({"epoch": 1, "evil": Evil()}, tmp_path)
    with pytest.raises(pickle.UnpicklingError):
        load_state(tmp_path)


@pytest.fixture
def checkpoints(tmp_path):
    """Checkpoints of epochs 1 to 4, and what is said of them."""
    said = []
    made = Checkpoints(Store(tmp_path / "kept"), said.append)
    for epoch in range(1, 5):
        made.save({"epoch": epoch, "weights": torch.full((100,), float(epoch))}, epoch)
    return made, said


def test_the_last_two_checkpoints_are_kept_and_the_latest_is_read(checkpoints):
    made, said = checkpoints
    assert [name[:6] for name in made.store.names()] == ["000003", "000004"]
    latest = made.latest()
    assert latest["epoch"] == 4
    assert latest["weights"].eq(4).all()
    assert said == []


def _truncate(content):
    return content[: len(content) // 2]


def _flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [_truncate, _flip, lambda content: b""])
def test_of_a_damaged_checkpoint_the_one_before_it_is_used_and_it_is_said(checkpoints, damage):
    made, said = checkpoints
    older, newest = made.store.names()
    made.store.write(newest, damage(made.store.read(newest)))
    assert made.latest()["epoch"] == 3
    assert len(said) == 1
    assert "epoch 4" in said[0]
    assert "damaged" in said[0]
    made.store.write(older, damage(made.store.read(older)))
    assert made.latest() is None, "then the training begins again"


def test_a_kept_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path(tmp_path / "owned").touch, ())

    buffer = io.BytesIO()
    torch.save({"epoch": 1, "evil": Evil()}, buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()[:16]
    store = Store(tmp_path / "kept")
    store.write(f"000001-{digest}.pt", content)
    assert Checkpoints(store, lambda said: None).latest() is None
    assert not (tmp_path / "owned").exists()
