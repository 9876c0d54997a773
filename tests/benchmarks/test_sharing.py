"""The benchmark of a shared GPU, on a pretended one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import sharing


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_trials_that_share_a_gpu_are_counted() -> None:
    job = sharing.make_job(images=256, epochs=1)
    assert job.samples_per_trial == 256 + 334
    assert 1 < sharing.trials_an_hour(job, k=2, trials=2) < 36_000


def test_each_share_is_told_with_and_without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def rate(job: object, k: int, trials: int) -> float:
        seen.append((job.protocol.cuda_graphs, k))
        return 100.0 * k

    monkeypatch.setattr(sharing, "prepare", lambda: torch.device("cuda"))
    monkeypatch.setattr(sharing, "trials_an_hour", rate)
    monkeypatch.setattr(sharing, "busy", lambda job: 0.25 + job.protocol.cuda_graphs / 2)
    monkeypatch.setattr(sharing.ray, "init", lambda **_: None)
    monkeypatch.setattr(sharing.ray, "shutdown", lambda: None)
    values = {row.what: row.value for row in sharing.rows()}
    assert values == {
        **{f"{k} trials at 1/{k} of a GPU": k for k in (2, 4, 8)},
        **{f"{k} trials at 1/{k} of a GPU, as CUDA graphs": k for k in (2, 4, 8)},
        "share of an epoch that the GPU computes": 0.25,
        "share of an epoch that the GPU computes, as CUDA graphs": 0.75,
    }
    assert set(seen) == {(graphs, k) for graphs in (False, True) for k in (1, 2, 4, 8)}
