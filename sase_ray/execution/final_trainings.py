"""Final trainings, each by one or several workers, and each at most once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import ray

from sase_ray.cluster.slots import Slots
from sase_ray.execution.all_searches import POLL_SECONDS, Searches
from sase_ray.execution.failures import check_storage, reason
from trainables.data import FinalData
from trainables.final.distributed import MAX_FAILURES, train_final_together
from trainables.final.gradcam import read_activations
from trainables.final.training import WEIGHTS, FinalJob, train_final
from trainables.persistence.checkpoint import Checkpoints
from trainables.persistence.resumable import NOTE
from trainables.persistence.store import Store
from trainables.planted.plant import Plant
from trainables.training.frozen_host import TrainedHost

MAX_RETRIES = 5
"""Number of times that a training whose process (or node) died is resumed elsewhere."""


class FinalTrainings:
    """The final trainings of a run.

    Args:
        slots: Division of the cluster among trials.
        workers: Number of workers of each training.
        data: Data to train and test on.
        kept: Store of results and checkpoints; what it holds is not trained again.
        host: Reference of the trained host that all modules are inserted into, if any.
    """

    def __init__(
        self, slots: Slots, workers: int, data: FinalData, kept: Store, host: Any = None
    ) -> None:
        self.host = host
        self.trial = slots.trial
        self.data = ray.put(data)
        self.kept = kept
        self.teams: Any = None
        if workers > 1:
            at_once = max(1, slots.room_for_workers // workers)
            # It holds no resources itself, only what it starts does. There is one thread per
            # training at a time; trainings without room wait at no cost.
            teams: Any = ray.remote(
                num_cpus=0, max_restarts=MAX_FAILURES, max_task_retries=MAX_FAILURES
            )(_Teams)
            self.teams = teams.options(max_concurrency=at_once).remote(
                workers, slots.trial.cpus, slots.trial.gpus > 0
            )

    def begin(self, job: FinalJob, plant: Any = None) -> Any:
        """Return the reference of the result of `train_final`, possibly with a `NOTE`.

        Args:
            job: Training to run.
            plant: Reference of the plant that is imitated, if any.
        """
        kept = self._place(job)
        if self.teams is not None:
            return self.teams.train.remote(job, [self.data], kept)
        alone = _alone.options(num_cpus=self.trial.cpus, num_gpus=self.trial.gpus)
        return alone.remote(job, self.data, self.host, plant, kept)

    def activations(self, job: FinalJob) -> pd.DataFrame | None:
        """Return the Grad-CAM rows of a job's trained network, or None if they were not kept.

        Raises:
            StorageError: They cannot be read.
        """
        return read_activations(self._place(job))

    def weights(self, job: FinalJob) -> bytes | None:
        """Return the file of a job's trained network, or None if it was not kept.

        Raises:
            StorageError: It cannot be read.
        """
        return self._place(job).read(WEIGHTS)

    def _place(self, job: FinalJob) -> Store:
        module = hashlib.sha256(job.module.encode()).hexdigest()[:16]
        return self.kept.at(f"{module}-{job.seed}")


@ray.remote(max_retries=MAX_RETRIES)
def _alone(
    job: FinalJob, data: FinalData, host: TrainedHost | None, plant: Plant | None, kept: Store
) -> dict[str, Any]:
    notes: list[str] = []
    if plant is not None and host is not None:
        host = plant.in_host(host)
        data = plant.label_final(data)
    job = replace(job, host=host)
    return _once(kept, lambda: train_final(job, data, Checkpoints(kept, notes.append)), notes)


def await_trainings(
    trainings: Mapping[tuple[str, int], Any], searches: Searches
) -> dict[tuple[str, int], dict[str, Any]]:
    """Wait for final trainings, and notify the run's observers of each.

    Args:
        trainings: References that `FinalTrainings.begin` returned, by module and seed.
        searches: Run that the trainings belong to; it records those that failed.

    Returns:
        Results of those that did not fail, by module and seed.

    Raises:
        StorageError: A training could not write its checkpoint.
    """
    searches.notify("finals_known", len(trainings))
    keys = {future: key for key, future in trainings.items()}
    results = {}
    pending = list(keys)
    while pending:
        ended, pending = ray.wait(pending, timeout=POLL_SECONDS)
        searches.notify("tick", False)
        for future in ended:
            module, seed = keys[future]
            failed = False
            try:
                result = ray.get(future)
                if note := result.pop(NOTE, ""):
                    searches.notify("noted", f"final training of {module}: {note}")
                results[module, seed] = result
            except ray.exceptions.RayError as error:
                check_storage(error)
                label = f"final training of {module} with seed {seed}"
                searches.failures[label] = f"{label}: {reason(error)}"
                failed = True
            searches.notify("final_ended", module, failed)
    searches.notify("tick", True)
    return results


class _Teams:
    def __init__(self, workers: int, cpus: float, gpu: bool) -> None:
        self.settings: dict[str, Any] = {"workers": workers, "cpus": cpus, "gpu": gpu}

    def train(self, job: FinalJob, data: list[ray.ObjectRef], kept: Store) -> dict[str, Any]:
        return _once(kept, lambda: train_final_together(job, data[0], kept=kept, **self.settings))


def _once(
    kept: Store, train: Callable[[], dict[str, Any]], notes: list[str] | None = None
) -> dict[str, Any]:
    content = kept.read("result.json")
    if content is None:
        result = train()
        kept.write("result.json", json.dumps(result).encode())
        return result | {NOTE: "; ".join(filter(None, [*(notes or ()), result.get(NOTE)]))}
    known: dict[str, Any] = json.loads(content)
    return known
