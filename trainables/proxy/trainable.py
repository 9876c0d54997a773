"""`ProxyTrainable`: one genotype trained by the proxy protocol; fidelity is the epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import fmean, stdev
from typing import Any

import torch
from ray import tune
from torch import nn

from search_spaces.ops import load_operations
from trainables.data import Batches
from trainables.hardware.device import take_device
from trainables.hardware.peak_memory import PeakMemory
from trainables.metrics import SPREAD
from trainables.persistence.resumable import Result, ResumableTrainable
from trainables.proxy.candidate import Candidate
from trainables.search_job import SearchJob
from trainables.training.loop import (
    Diverged,
    evaluate,
    random_state,
    set_random_state,
)
from trainables.training.norm_statistics import estimate_statistics, statistics_batches


class ProxyTrainable(ResumableTrainable):
    """Training of the network of one genotype, one epoch per Tune iteration.

    The protocol decides whether it starts from scratch or inside a host that was trained without
    attention; whether its last weights are evaluated or their exponential moving average; and
    whether it is trained with one seed or with several, whose scores are averaged.

    The trial's config holds the genotype's variables (`SearchSpace.variables`). Each iteration
    reports the task's metrics (`val_loss`, `val_accuracy`), `train_loss`, `samples` (the cost of
    this trial so far, including validation images), `train_seconds`, `peak_memory_mib`,
    `genotype`, and, if it diverged, the `reason`; with several seeds it also reports their standard
    deviation, as `val_loss_sd` and so on.
    """

    def prepare(self, job: SearchJob | None = None) -> None:
        """Put the data on the device."""
        if job is None:
            raise ValueError("hand the job over: tune.with_parameters(ProxyTrainable, job=job)")
        self.device = take_device(job.threads)
        self.job = job
        self.data = job.data.to(self.device)
        load_operations(job.space)
        self.val_batches = Batches(
            self.data.validation,
            512,
            self.data.normalisation,
            channels_last=job.protocol.channels_last and self.device.type == "cuda",
        )
        self.statistics = statistics_batches(self.data, job.protocol, self.device)

    def identity(self, config: dict[str, Any]) -> str:
        """Return the genotype."""
        return str(self.job.space.from_config(config))

    def lost(self) -> dict[str, float]:
        """Return the metrics of a trial that diverged."""
        return self.job.task.lost("val")

    def build(self, config: dict[str, Any]) -> None:
        """Build the network and the optimiser for the config's genotype."""
        job = self.job
        self.peak_memory = PeakMemory(self.device)
        self.genotype = job.space.from_config(config)
        self.candidates = [
            Candidate(job, self.genotype, self.data, seed, self.device) for seed in job.seeds
        ]
        torch.manual_seed(job.seed)
        self.epoch = 0
        self.samples = 0
        self.train_seconds = 0.0

    def train_epoch(self) -> Result:
        """Train one epoch and evaluate on the validation set."""
        started = time.perf_counter()
        result: dict[str, Any] = {"diverged": False, "reason": ""}
        try:
            result["train_loss"] = fmean([c.train_epoch() for c in self.candidates])
            result |= self.evaluate(
                lambda c: c.evaluated_model, self.val_batches, "val", spread=True
            )
        except Diverged as divergence:
            result |= {**self.lost(), "diverged": True, "reason": str(divergence)}
        self.epoch += 1
        self.samples += self.job.samples_per_epoch
        self.train_seconds += time.perf_counter() - started
        done = result["diverged"] or self.epoch >= self.job.protocol.epochs
        return result | {
            "genotype": str(self.genotype),
            "epoch": self.epoch,
            "samples": self.samples,
            "train_seconds": self.train_seconds,
            "peak_memory_mib": self.peak_memory.mib(),
            "finished": self.epoch >= self.job.protocol.epochs,
            tune.result.DONE: done,
        }

    def evaluate(
        self,
        network: Callable[[Candidate], nn.Module],
        batches: Batches,
        name: str,
        *,
        spread: bool = False,
    ) -> dict[str, float]:
        """Return the task's metrics as ``<name>_loss`` and so on, averaged over the seeds.

        Args:
            network: Function that selects one of a candidate's networks.
            batches: Batches of the images.
            name: Prefix of the metrics' names.
            spread: Whether ``<name>_loss_sd`` and so on are added where there are several seeds.

        Raises:
            Diverged: As in `training.loop.evaluate`.
        """
        job = self.job
        found = []
        for candidate in self.candidates:
            model = network(candidate)
            if job.host is not None and job.host.frozen:
                estimate_statistics(model, self.statistics, job.protocol, self.device)
            found.append(evaluate(model, batches, job.protocol, self.device, job.task))
        values = {
            key: [one.reported(name)[key] for one in found] for key in found[0].reported(name)
        }
        means = {key: fmean(value) for key, value in values.items()}
        if spread and len(found) > 1:
            means |= {f"{key}{SPREAD}": stdev(value) for key, value in values.items()}
        return means

    def state(self) -> dict[str, Any]:
        """Return the state that the rest of the training depends on."""
        return {
            "candidates": [candidate.state_dict() for candidate in self.candidates],
            "random": random_state(self.device),
            "epoch": self.epoch,
            "samples": self.samples,
            "train_seconds": self.train_seconds,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Resume from a state; on a CPU, bit for bit."""
        for candidate, own in zip(self.candidates, state["candidates"], strict=True):
            candidate.load_state_dict(own)
        set_random_state(state["random"], self.device)
        self.epoch = state["epoch"]
        self.samples = state["samples"]
        self.train_seconds = state["train_seconds"]
