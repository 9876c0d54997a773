"""Ten thousand empty trials in Ray Tune: does time grow linearly and memory stay constant?

It takes a quarter of an hour and so is not part of `make bench`:
``python benchmarks/long_search.py 1000 10000``.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

from ray import tune
from trials import WORKERS, make_job, start_ray

from sase_ray.execution.one_search import run_search
from sase_ray.strategies import Plan, SearchTask
from sase_ray.strategies.black_box.random import RandomSearch
from trainables.proxy.trainable import ProxyTrainable


class NoOp(ProxyTrainable):
    def build(self, config: dict[str, Any]) -> None:
        self.genotype = self.job.space.from_config(config)

    def train_epoch(self) -> dict[str, Any]:
        digits = sum(map(ord, str(self.genotype))) % 1000
        return {
            "genotype": str(self.genotype), "epoch": 1, "train_seconds": 0.0,
            "samples": self.job.samples_per_trial,
            "train_loss": 0.0, "val_loss": 1 + digits / 1000, "val_accuracy": 0.0,
            "diverged": False, "reason": "", "finished": True, tune.result.DONE: True,
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        return {}


class NoOpSearch(RandomSearch):
    name = "no-op"

    def plan(self, task: SearchTask) -> Plan:
        return replace(super().plan(task), trainable=NoOp)


def main(trials: int) -> None:
    start_ray()
    job = make_job()
    task = SearchTask(job, trials * job.samples_per_trial)
    with tempfile.TemporaryDirectory() as storage:
        started = time.perf_counter()
        outcome = run_search(NoOpSearch(), task, storage=storage, concurrency=WORKERS)
        seconds = time.perf_counter() - started
        left = sum(len(files) for _, _, files in os.walk(storage))
    assert len(outcome.history.trials()) == trials
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{trials:,} trials: {seconds:.0f} s, {1000 * seconds / trials:.1f} ms each, "
        f"peak {peak:.0f} MiB, {left} files left",
        flush=True,
    )


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(int(sys.argv[1]))
    else:
        for count in sys.argv[1:]:  # each in a separate process, for a separate peak
            subprocess.run([sys.executable, __file__, count], check=True)
