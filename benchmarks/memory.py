"""Peak memory of a supernet step, compared with the same supernet operation by operation."""

from __future__ import annotations

import resource
import subprocess
import sys

import psutil
import torch
from harness import Row, plain_forms, prepare
from torch.nn import functional as F

from search_spaces.mixture import Mixture
from search_spaces.network import NetworkSpec, Supernet
from search_spaces.space import SearchSpace
from search_spaces.super_block import SuperSASE

BATCH = 256


def peak(kind: str) -> int:
    """Return the bytes that three steps need in addition to the model and torch itself."""
    device = prepare()
    space = SearchSpace.load("sase")
    block = SuperSASE if kind == "fast" else plain_forms().PlainSuperSASE
    supernet = Supernet(NetworkSpec("resnet20", 10, 3, (32, 32)), space, block=block).to(device)
    alpha = [torch.zeros(7, device=device, requires_grad=True) for _ in space.variables]

    def step(batch: int) -> None:
        images = torch.randn(batch, 3, 32, 32, device=device)
        labels = torch.zeros(batch, dtype=torch.int64, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = supernet(images, Mixture([a.softmax(0) for a in alpha]))
        F.cross_entropy(logits.float(), labels).backward()

    step(2)  # for what libraries set up once
    before = _resident(device)
    for _ in range(3):
        step(BATCH)
    return _peak(device) - before


def _resident(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    return psutil.Process().memory_info().rss


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rows() -> list[Row]:
    found = {}
    for kind in ("fast", "plain"):
        done = subprocess.run(
            [sys.executable, __file__, kind], capture_output=True, text=True, check=True
        )
        found[kind] = int(done.stdout.split()[-1]) / 2**20
    return [
        Row(
            f"peak memory of a supernet step, batch {BATCH}",
            "operation by operation",
            found["fast"] / found["plain"],
            0.6,
            "at most",
            ", ".join(f"{name} {value:,.0f} MiB" for name, value in found.items()),
        )
    ]


if __name__ == "__main__":
    print(peak(sys.argv[1]))
