"""Final trainings by several workers each, as many at once as the cluster has room for."""

from __future__ import annotations

from typing import Any

import ray

from sase_ray.cluster import Slots
from trainables.distributed import MAX_FAILURES, train_final_together
from trainables.final import FinalJob


def start_teams(slots: Slots, workers: int) -> Any:
    """Return an actor whose ``train.remote(FinalJob, [reference of FinalData])`` trains one job.

    What does not fit waits in the actor, where it costs nothing.
    """
    at_once = max(1, slots.room_for_workers // workers)
    return _Teams.options(max_concurrency=at_once).remote(slots, workers)  # type: ignore[attr-defined]


# Holds nothing itself: what it starts does. A thread for each training at a time.
@ray.remote(num_cpus=0, max_restarts=MAX_FAILURES, max_task_retries=MAX_FAILURES)
class _Teams:
    def __init__(self, slots: Slots, workers: int) -> None:
        self.cpus, self.gpu = slots.trial.cpus, slots.trial.gpus > 0
        self.workers = workers

    def train(self, job: FinalJob, data: list[ray.ObjectRef]) -> dict[str, Any]:
        return train_final_together(
            job, data[0], workers=self.workers, cpus=self.cpus, gpu=self.gpu
        )
