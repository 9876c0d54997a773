"""The benchmark of a shared GPU, on a pretended one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import sharing


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_trials_that_share_a_gpu_are_counted() -> None:
    job = sharing.make_job(images=256, epochs=1)
    assert job.samples_per_trial == 256
    assert 1 < sharing.trials_an_hour(job, k=2, trials=2) < 36_000
