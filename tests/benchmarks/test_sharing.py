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


def test_each_share_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "prepare", lambda: torch.device("cuda"))
    monkeypatch.setattr(sharing, "trials_an_hour", lambda job, k, trials: 100.0 * k)
    monkeypatch.setattr(sharing, "busy", lambda job: 0.25)
    monkeypatch.setattr(sharing.ray, "init", lambda **_: None)
    monkeypatch.setattr(sharing.ray, "shutdown", lambda: None)
    values = {row.what: row.value for row in sharing.rows()}
    assert values == {
        **{f"{k} trials at 1/{k} of a GPU": k for k in (2, 4, 8)},
        "share of an epoch that the GPU computes": 0.25,
    }
