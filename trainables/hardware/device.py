"""The device that a process trains on, and its settings before the first step."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import ray
import torch

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # constants of glibc's malloc.h
LARGEST_KEPT = 32 * 2**20
"""Largest value that glibc accepts for its threshold, in bytes."""


def best_device() -> torch.device:
    """Return the GPU that this process may use, with its index, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def take_device(threads: int) -> torch.device:
    """Return the device that this process trains on, and set it up.

    A process to which Ray gave a share of a GPU is limited to that share of its memory, so that the
    other processes keep theirs.

    Args:
        threads: Number of threads that torch uses on a CPU.
    """
    device = best_device()
    if device.type == "cpu":
        torch.set_num_threads(threads)
        keep_freed_memory()
    elif 0 < (share := gpu_share()) < 1:
        torch.cuda.set_per_process_memory_fraction(share, device)
    return device


def device_name(device: torch.device) -> str:
    """Return a device's name, so that measurements on one are not used for another."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} thread(s)"


def processor() -> str:
    """Return the name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def gpu_share() -> float:
    """Return the share of a GPU that Ray gave this process; 0 outside of Ray, or without one."""
    if not ray.is_initialized():
        return 0.0
    return float(ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0))


def keep_freed_memory() -> bool:
    """Let glibc keep the memory of freed tensors; return whether that could be set.

    By default it returns blocks of a feature map's size to the system and requests them again for
    the next one, page by page: up to ten times the time of the operation that writes them
    (measured: `benchmarks/NOTES.md`). The process keeps its peak memory instead.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(MMAP_THRESHOLD, LARGEST_KEPT)) and bool(
        libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)
    )
