"""What is set up before the first step: threads, memory, a share of a GPU."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest
import torch

from trainables.hardware import device
from trainables.hardware.device import gpu_share, keep_freed_memory, take_device

FAULTS = """
import resource, sys, torch
from trainables.hardware.device import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "kept":
    assert keep_freed_memory()
x = torch.ones(2**20)

def step():
    return [x + i for i in range(6)]  # 24 MiB, given back at the end of every step

for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, "kept"], capture_output=True, text=True, check=True
    )
    pages = 20 * 6 * 4 * 2**20 // resource.getpagesize()
    assert int(done.stdout) < pages / 20


def test_elsewhere_than_on_glibc_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CPU is taken where there is no GPU")
def test_a_cpu_is_taken_with_the_threads_of_the_trial() -> None:
    before = torch.get_num_threads()
    try:
        assert take_device(1) == torch.device("cpu")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("share", "limited"), [(0.25, [0.25]), (1.0, []), (2.0, []), (0.0, [])])
def test_a_share_of_a_gpu_limits_the_memory(
    share: float, limited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    monkeypatch.setattr(device, "best_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(device, "gpu_share", lambda: share)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda f, _: limits.append(f)
    )
    take_device(1)
    assert limits == limited


def test_outside_of_ray_no_share_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.ray, "is_initialized", lambda: False)
    assert gpu_share() == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_more_than_the_share_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpu_share", lambda: 0.1)
    taken = take_device(1)
    whole = torch.cuda.get_device_properties(taken).total_memory
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            torch.empty(int(0.2 * whole), dtype=torch.uint8, device=taken)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, taken)


@pytest.mark.ray
def test_ray_tells_the_share_that_a_task_holds(ray_cluster: None) -> None:
    import ray

    @ray.remote(num_cpus=1)
    def share() -> float:
        return gpu_share()

    assert ray.get(share.remote()) == 0
