"""How the benchmarks measure: two things in turn in one run, the ratio of their medians."""

from __future__ import annotations

import importlib.util
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch

from trainables.hardware.device import best_device, keep_freed_memory

THREADS = 2


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        what: is measured.
        against: what it is compared with; "-" for a figure of its own.
        value: the ratio, or the figure in `unit`.
        target: what it should be; None where it is only told.
        better: whether the target is a largest or a smallest value.
        detail: the figures that the ratio comes from.
        unit: of the value.
    """

    what: str
    against: str
    value: float
    target: float | None
    better: Literal["at most", "at least"]
    detail: str
    unit: str = "x"

    @property
    def holds(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "at most" else self.value >= self.target

    def as_dict(self) -> dict[str, Any]:
        """Return all, and whether it holds."""
        return {**asdict(self), "holds": self.holds}


def prepare() -> torch.device:
    """Set the process up as a trial's is, and return the device."""
    device = best_device()
    if device.type == "cpu":
        torch.set_num_threads(THREADS)
        keep_freed_memory()
    return device


def in_turn(
    actions: dict[str, Callable[[], Any]], device: torch.device, *, repeats: int, warmup: int = 3
) -> dict[str, float]:
    """Return the median seconds of each action; they run in turn, so that drift hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for repeat in range(warmup + repeats):
        for name, action in actions.items():
            synchronise(device)
            started = time.perf_counter()
            action()
            synchronise(device)
            if repeat >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def plain_forms() -> ModuleType:
    """Return the blocks that are evaluated operation by operation: the tests' reference."""
    path = Path(__file__).parents[1] / "tests" / "search_spaces" / "plain.py"
    spec = importlib.util.spec_from_file_location("plain", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def machine(device: torch.device) -> dict[str, Any]:
    """Describe what the figures were measured on."""
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    return found


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()
