"""`ProxyTrainable`: one genotype trained by the proxy protocol; fidelity is the epoch."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch
from ray import tune
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from search_spaces.ops import load_operations
from trainables.checkpoint import load_state, save_state
from trainables.data import Batches
from trainables.job import SearchJob
from trainables.training import (
    Diverged,
    Trainer,
    best_device,
    evaluate,
    place,
    random_state,
    set_random_state,
    train_epoch,
    training_batches,
)
from trainables.warm_host import insert_into_host

DIVERGED_SCORE = {"val_loss": float("inf"), "val_accuracy": 0.0}
"""Metrics of a trial that diverged: worse than any other, so that it is ranked last."""


class ProxyTrainable(tune.Trainable):
    """Trains the network of one genotype, one epoch a Tune iteration.

    It starts from scratch, or inside a host that was trained without attention, as the protocol
    says; and it is judged by its last weights or by their exponential moving average.

    The trial's config holds the genotype's variables (`SearchSpace.variables`). Each iteration
    reports `val_loss` (nats), `val_accuracy` (0 to 1), `train_loss`, `samples` (training samples
    seen by this trial so far), `train_seconds`, `genotype`, and, if it diverged, the `reason`.
    """

    def setup(self, config: dict[str, Any], job: SearchJob | None = None) -> None:
        """Build network, data and optimiser for the config's genotype."""
        if job is None:
            raise ValueError("hand the job over: tune.with_parameters(ProxyTrainable, job=job)")
        self.device = best_device()
        if self.device.type == "cpu":
            torch.set_num_threads(job.threads)
        self.job = job
        self.data = job.data.to(self.device)
        load_operations(job.space)
        self._start(config)

    def _start(self, config: dict[str, Any]) -> None:
        job = self.job
        self.genotype = job.space.from_config(config)
        model = job.network.with_genotype(self.genotype, seed=job.seed)
        if job.protocol.warm_host:
            insert_into_host(model, job)
        self.model = place(model, job.protocol, self.device)
        channels_last = job.protocol.channels_last and self.device.type == "cuda"
        self.train_batches = training_batches(self.data, job.protocol, job.seed, self.device)
        self.val_batches = Batches(
            self.data.validation, 512, self.data.normalisation, channels_last=channels_last
        )
        self.trainer = Trainer(
            self.model,
            self._parameters(),
            job.protocol,
            len(self.train_batches) * job.protocol.epochs,
            self.device,
        )
        decay = job.protocol.averaging
        self.average = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
            if decay
            else None
        )
        torch.manual_seed(job.seed)
        self.epoch = 0
        self.samples = 0
        self.train_seconds = 0.0

    def _parameters(self) -> Iterable[nn.Parameter] | list[dict[str, Any]]:
        """All weights; or those of the attention, and of the host at a rate of their own."""
        protocol, host = self.job.protocol, self.job.host
        if protocol.host_lr == 1 or host is None:
            return self.model.parameters()
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in self.model.named_parameters():
            groups[name in host.state].append(parameter)
        for parameter in groups[True]:
            parameter.requires_grad_(protocol.host_lr > 0)
        rates = {True: protocol.host_lr * protocol.lr, False: protocol.lr}
        return [{"params": groups[is_host], "lr": lr} for is_host, lr in rates.items() if lr]

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated: with averaged weights, if the protocol averages."""
        return self.average.module if self.average else self.model

    def _update_average(self) -> None:
        if self.average:
            self.average.update_parameters(self.model)

    def step(self) -> dict[str, Any]:
        """Train one epoch and evaluate on the validation set."""
        started = time.perf_counter()
        result: dict[str, Any] = {"diverged": False, "reason": ""}
        try:
            result["train_loss"] = train_epoch(
                self.trainer, self.train_batches, after_step=self._update_average
            )
            metrics = evaluate(self.judged, self.val_batches, self.job.protocol, self.device)
            result |= {"val_loss": metrics.loss, "val_accuracy": metrics.accuracy}
        except Diverged as divergence:
            result |= {**DIVERGED_SCORE, "diverged": True, "reason": str(divergence)}
        self.epoch += 1
        self.samples += self.train_batches.samples_per_epoch
        self.train_seconds += time.perf_counter() - started
        done = result["diverged"] or self.epoch >= self.job.protocol.epochs
        return result | {
            "genotype": str(self.genotype),
            "epoch": self.epoch,
            "samples": self.samples,
            "train_seconds": self.train_seconds,
            "finished": self.epoch >= self.job.protocol.epochs,
            tune.result.DONE: done,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write everything that the rest of the training depends on."""
        state = {
            "genotype": str(self.genotype),
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "trainer": self.trainer.state_dict(),
            "batches": self.train_batches.state_dict(),
            "random": random_state(self.device),
            "epoch": self.epoch,
            "samples": self.samples,
            "train_seconds": self.train_seconds,
        }
        save_state(state, checkpoint_dir)

    def load_checkpoint(self, checkpoint: str | dict[str, Any] | None) -> None:
        """Go on from a checkpoint, on a CPU bit for bit."""
        state = load_state(str(checkpoint))
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.trainer.load_state_dict(state["trainer"])
        self.train_batches.load_state_dict(state["batches"])
        set_random_state(state["random"], self.device)
        self.epoch = state["epoch"]
        self.samples = state["samples"]
        self.train_seconds = state["train_seconds"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another genotype in the same process: Tune reuses the actor."""
        self._start(new_config)
        return True
