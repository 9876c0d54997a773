"""Measurement of the memory of a training."""

from __future__ import annotations

from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class PeakMemory:
    """Peak memory of a process since this object was created, minus its memory at that time.

    On a GPU it is the memory of torch's allocator; on a CPU it is the resident memory, as Linux
    counts it: pages that the allocator keeps from earlier work are not counted again. Neither
    psutil nor `getrusage` has a peak that can be reset within a process.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device) / 2**20
        else:
            self._is_reset = _reset_peak()
            self._before = _resident("VmRSS")

    def mib(self) -> float:
        """Return the peak memory in MiB; not a number where it cannot be measured."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20 - self._before
        return _resident("VmHWM") - self._before if self._is_reset else float("nan")


def _reset_peak() -> bool:
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True


def _resident(key: str) -> float:
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))
