"""The peak of memory, against blocks of a known size."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path

import pytest
import torch

from trainables.hardware import peak_memory as memory
from trainables.hardware.peak_memory import PeakMemory

CPU = torch.device("cpu")


@pytest.fixture
def resettable():
    if not memory._reset_peak():
        pytest.skip("this system does not let a process reset its peak of memory")
    # What tests before this one freed may still be the process's: a block there would add nothing.
    ctypes.CDLL(None).malloc_trim(0)


def filled(mib):
    return torch.ones(mib * 2**18)


def test_a_block_that_was_freed_is_in_the_peak(resettable):
    peak = PeakMemory(CPU)
    block = filled(256)
    del block
    assert 250 < peak.mib() < 300


def test_what_was_held_before_is_not_counted(resettable):
    held = filled(256)
    peak = PeakMemory(CPU)
    assert peak.mib() < 30
    assert len(held)


def test_the_peak_begins_anew_with_each(resettable):
    first = PeakMemory(CPU)
    block = filled(256)
    del block
    assert first.mib() > 250
    assert PeakMemory(CPU).mib() < 30


def test_a_system_that_does_not_tell_gives_no_number(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_RESET", tmp_path)
    assert math.isnan(PeakMemory(CPU).mib())
    monkeypatch.setattr(memory, "_RESET", tmp_path / "reset")
    monkeypatch.setattr(memory, "_STATUS", Path(tmp_path / "nowhere"))
    assert math.isnan(PeakMemory(CPU).mib())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_allocator_is_asked():
    device = torch.device("cuda")
    held = torch.ones(2**18, device=device)
    peak = PeakMemory(device)
    block = torch.ones(64 * 2**18, device=device)
    del block
    assert peak.mib() == pytest.approx(64, abs=2)
    assert len(held)
