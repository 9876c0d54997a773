"""A candidate in training: network, data order, optimiser and averaged weights of one seed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from search_spaces.genotype import Genotype
from trainables.data import SearchData
from trainables.proxy.warm_host import insert_into_host
from trainables.search_job import SearchJob
from trainables.training.cuda_graphs import as_graphs
from trainables.training.loop import Trainer, place, train_epoch, training_batches


class Candidate:
    """One network of a genotype under the proxy protocol.

    Args:
        job: Search that the candidate belongs to.
        genotype: Genotype of the job's space.
        data: The job's data, on the device.
        seed: Seed of initial weights, batch order and augmentation.
        device: Device of the training.
    """

    def __init__(
        self,
        job: SearchJob,
        genotype: Genotype,
        data: SearchData,
        seed: int,
        device: torch.device,
    ) -> None:
        self.job = job
        model = job.network.with_genotype(genotype, seed=seed)
        if job.starts_in_host:
            insert_into_host(model, job)
        self.model = place(model, job.protocol, device)
        self.batches = training_batches(data, job.protocol, seed, device)
        steps = len(self.batches) * job.protocol.epochs
        parameters = self._parameters()
        forward = as_graphs(self.model, job.protocol, device)
        self.trainer = Trainer(forward, parameters, job.protocol, steps, device, job.task)
        decay = job.protocol.averaging
        average = get_ema_multi_avg_fn(decay)
        self.average = (
            AveragedModel(self.model, multi_avg_fn=average, use_buffers=True) if decay else None
        )

    @property
    def evaluated_model(self) -> nn.Module:
        """Network that is evaluated: with averaged weights, if the protocol averages them."""
        return self.average.module if self.average else self.model

    def train_epoch(self) -> float:
        """Train one epoch; return the mean training loss.

        Raises:
            Diverged: As in `training.loop.train_epoch`.
        """
        return train_epoch(self.trainer, self.batches, after_step=self._update_average)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that the rest of the training depends on, except random states."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "trainer": self.trainer.state_dict(),
            "batches": self.batches.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.trainer.load_state_dict(state["trainer"])
        self.batches.load_state_dict(state["batches"])

    def _update_average(self) -> None:
        if self.average:
            self.average.update_parameters(self.model)

    def _parameters(self) -> Iterable[nn.Parameter] | list[dict[str, Any]]:
        """Return all weights; or those of the attention, and of the host at a rate of their own."""
        protocol, host = self.job.protocol, self.job.host
        if protocol.host_lr == 1 or host is None or self.job.host_job is not None:
            return self.model.parameters()
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in self.model.named_parameters():
            groups[name in host.state].append(parameter)
        for parameter in groups[True]:
            parameter.requires_grad_(protocol.host_lr > 0)
        rates = {True: protocol.host_lr * protocol.lr, False: protocol.lr}
        return [{"params": groups[is_host], "lr": lr} for is_host, lr in rates.items() if lr]
