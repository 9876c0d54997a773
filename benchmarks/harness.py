"""Measurement for the benchmarks: two actions in turn in one run, and the ratio of medians."""

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
    """One row of the table.

    Attributes:
        what: Name of what is measured.
        against: Name of what it is compared with; "-" for an absolute figure.
        value: Ratio, or the figure in `unit`.
        target: Value that it should reach; None where it is only reported.
        better: Whether the target is a maximum or a minimum.
        detail: Figures from which the ratio is computed.
        unit: Unit of the value.
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
        """Whether the target is met; None where there is no target."""
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "at most" else self.value >= self.target

    def as_dict(self) -> dict[str, Any]:
        """Return all attributes, and whether the target holds."""
        return {**asdict(self), "holds": self.holds}


def prepare() -> torch.device:
    """Set up the process like a trial's, and return the device."""
    device = best_device()
    if device.type == "cpu":
        torch.set_num_threads(THREADS)
        keep_freed_memory()
    return device


def in_turn(
    actions: dict[str, Callable[[], Any]], device: torch.device, *, repeats: int, warmup: int = 3
) -> dict[str, float]:
    """Return each action's median seconds; they run in turn, so that drift affects all alike."""
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
    """Return the module of blocks evaluated operation by operation: the tests' reference."""
    path = Path(__file__).parents[1] / "tests" / "search_spaces" / "plain.py"
    spec = importlib.util.spec_from_file_location("plain", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the machine that the figures were measured on."""
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
