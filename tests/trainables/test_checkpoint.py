"""Checkpoints are whole or absent, and never run code."""

from __future__ import annotations

import pickle

import pytest
import torch

from trainables.checkpoint import load_state, save_state


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
