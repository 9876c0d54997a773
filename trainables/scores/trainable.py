"""`ScoreTrainable`: one untrained network, scored on one batch."""

from __future__ import annotations

import math
import time
from typing import Any

from ray import tune

from search_spaces.ops import load_operations
from trainables.data import Batches
from trainables.hardware.device import take_device
from trainables.hardware.peak_memory import PeakMemory
from trainables.persistence.resumable import Result, ResumableTrainable
from trainables.proxy.warm_host import insert_into_host
from trainables.scores.contract import Score
from trainables.search_job import SearchJob
from trainables.training.loop import place


class ScoreTrainable(ResumableTrainable):
    """Score of the network of one genotype, in a single Tune iteration.

    All genotypes of a search get the same batch (of training images, without augmentation) and the
    same seed of initial weights, so that scores differ only by the genotypes. Where the run has a
    host that all share, the network starts inside it.

    The trial's config holds the genotype's variables (`SearchSpace.variables`). The iteration
    reports the score under the name of its metric, and `genotype`, `epoch`, `samples`,
    `train_seconds` and `peak_memory_mib`; where the score is not finite, also a `reason`.
    """

    def prepare(
        self, job: SearchJob | None = None, score: Score | None = None, batch_size: int = 64
    ) -> None:
        """Put the batch on the device.

        Args:
            job: Search that the networks belong to.
            score: Score to compute.
            batch_size: Number of images of the batch.
        """
        if job is None or score is None:
            raise ValueError("hand job and score over through tune.with_parameters")
        self.device = take_device(job.threads)
        self.job, self.score = job, score
        load_operations(job.space)
        data = job.data.to(self.device)
        batches = Batches(data.train, batch_size, data.normalisation, seed=job.seed, shuffle=True)
        self.images, self.targets = next(iter(batches))

    def identity(self, config: dict[str, Any]) -> str:
        """Return the genotype."""
        return str(self.job.space.from_config(config))

    def lost(self) -> dict[str, float]:
        """Return the worst score."""
        return {self.score.metric.name: self.score.metric.when_lost}

    def build(self, config: dict[str, Any]) -> None:
        """Build the untrained network of the config's genotype."""
        job = self.job
        self.peak_memory = PeakMemory(self.device)
        self.genotype = job.space.from_config(config)
        network = job.network.with_genotype(self.genotype, seed=job.seed)
        if job.host_job is not None:
            insert_into_host(network, job)
        self.network = place(network, job.protocol, self.device)

    def train_epoch(self) -> Result:
        """Score the network; nothing is trained."""
        started = time.perf_counter()
        value = self.score.compute(self.network, self.images, self.targets, self.job.task)
        finite = math.isfinite(value)
        return (self.lost() if not finite else {self.score.metric.name: value}) | {
            "diverged": not finite,
            "reason": "" if finite else "the score is not finite",
            "genotype": str(self.genotype),
            "epoch": 1,
            "samples": self.score.samples(len(self.images)),
            "train_seconds": time.perf_counter() - started,
            "peak_memory_mib": self.peak_memory.mib(),
            "finished": True,
            tune.result.DONE: True,
        }

    def state(self) -> dict[str, Any]:
        """Return an empty state: the only iteration is the last."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Restore nothing."""
