"""A warm host: trained once without attention, as the start of all candidates of a search.

Then only the initial weights of the attention modules are random for each candidate; the noise of
training a host from scratch is the same for all.
"""

from __future__ import annotations

import time

import torch
from torch import nn

from trainables.hardware.device import take_device
from trainables.persistence.checkpoint import Checkpoints
from trainables.persistence.store import Store
from trainables.search_job import SearchJob
from trainables.training.cuda_graphs import as_graphs
from trainables.training.frozen_host import TrainedHost, enter_host, train_frozen_host
from trainables.training.loop import (
    Diverged,
    Trainer,
    place,
    train_epoch,
    training_batches,
)


def train_host(job: SearchJob, kept: Store | None = None) -> TrainedHost:
    """Train the job's host without attention: that of the run, or by its protocol for warm hosts.

    Args:
        job: Search whose host is trained.
        kept: Store of the trained host; a host that is there already is not trained again.

    Raises:
        ValueError: The protocol does not use a warm host.
        Diverged: The host has no finite weights to start from.
    """
    if job.host_job is not None:
        return train_frozen_host(job.host_job, kept)
    protocol = job.protocol.warm_host
    if protocol is None:
        raise ValueError("the proxy protocol has no warm host")
    checkpoints = None if kept is None else Checkpoints(kept)
    if checkpoints is not None and (saved := checkpoints.latest()) is not None:
        return TrainedHost(**saved)
    started = time.perf_counter()
    device = take_device(job.threads)
    model = place(job.network.build(seed=job.seed), protocol, device)
    batches = training_batches(job.data.to(device), protocol, job.seed, device)
    torch.manual_seed(job.seed)
    forward = as_graphs(model, protocol, device)
    steps = len(batches) * protocol.epochs
    trainer = Trainer(forward, model.parameters(), protocol, steps, device, job.task)
    for _ in range(protocol.epochs):
        train_epoch(trainer, batches)
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    if not all(value.isfinite().all() for value in state.values()):
        raise Diverged("the host's weights are not finite")
    host = TrainedHost(state, job.samples_of_host, time.perf_counter() - started)
    if checkpoints is not None:
        checkpoints.save(vars(host), protocol.epochs)
    return host


def insert_into_host(model: nn.Module, job: SearchJob) -> None:
    """Copy the trained host's weights into a candidate's network; its attention keeps its own.

    Raises:
        ValueError: The job has no trained host, or one of another network.
    """
    if job.host is None:
        raise ValueError("train the host first: replace(job, host=train_host(job))")
    enter_host(model, job.host)
