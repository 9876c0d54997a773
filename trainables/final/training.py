"""Final training: scoring a module by the protocol that all strategies share."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from search_spaces.baselines import BASELINES
from search_spaces.errors import shorten
from search_spaces.network import NetworkSpec
from search_spaces.ops import load_operations
from search_spaces.space import SearchSpace
from trainables.data import Batches, FinalData
from trainables.final.gradcam import class_activations, write_activations
from trainables.hardware.device import take_device
from trainables.persistence.checkpoint import Checkpoints
from trainables.persistence.resumable import NOTE
from trainables.persistence.store import Store
from trainables.tasks.classification import CLASSIFICATION
from trainables.tasks.contract import Task
from trainables.training.cuda_graphs import as_graphs
from trainables.training.frozen_host import TrainedHost, enter_host
from trainables.training.loop import (
    Batch,
    Diverged,
    Trainer,
    evaluate,
    place,
    random_state,
    set_random_state,
    train_epoch,
    training_batches,
)
from trainables.training.norm_statistics import estimate_statistics, statistics_batches
from trainables.training.protocol import TrainingProtocol

if TYPE_CHECKING:
    from trainables.final.team import Team


WEIGHTS = "network.pt"
"""Name of a trained network's state dict, next to its checkpoints."""


@dataclass(frozen=True)
class FinalJob:
    """One final training.

    Args:
        network: Specification of the host.
        space: Search space of the genotype; its own operations are loaded.
        module: Text of a genotype, or name of a baseline where `baseline` is true.
        baseline: Whether `module` is hand-designed.
        protocol: Training protocol.
        seed: Seed of initial weights, batch order and augmentation.
        threads: CPU threads.
        shown: Indices of test images whose heat maps are stored.
        task: Task that the network is trained for.
        host: Trained host that the module is inserted into; None trains from scratch.
        keeps_weights: Whether the network is kept as it was tested.
    """

    network: NetworkSpec
    space: SearchSpace
    module: str
    baseline: bool
    protocol: TrainingProtocol
    seed: int
    threads: int = 1
    shown: tuple[int, ...] = ()
    task: Task = CLASSIFICATION
    host: TrainedHost | None = None
    keeps_weights: bool = False

    def build(self) -> nn.Module:
        """Build the network with its initial weights."""
        if self.baseline:
            model = self.network.with_baseline(self.module, seed=self.seed)
        else:
            load_operations(self.space)
            model = self.network.with_genotype(self.module, seed=self.seed)
        if self.host is not None:
            tunes = BASELINES.find(self.module).tunes if self.baseline else "modules"
            enter_host(model, self.host, tunes)
        return model


def train_final(
    job: FinalJob,
    data: FinalData,
    checkpoints: Checkpoints | None = None,
    team: Team | None = None,
) -> dict[str, Any]:
    """Train from scratch, or in the job's host, to the end; then evaluate once on the test images.

    Args:
        job: Training to run.
        data: Data to train and test on.
        checkpoints: Checkpoints, one after each epoch; the training resumes from the last one.
            Heat maps and the trained network are stored next to them.
        team: Workers that train it together, each of which calls this; None is a single process.

    Returns:
        The task's metrics (`test_loss`, `test_accuracy`), `train_loss`, `samples` and
        `train_seconds`; a run that diverged has the worst metrics and a `reason`.
        A `NOTE` reports heat maps that could not be computed.
    """
    started = time.perf_counter()
    device = take_device(job.threads)
    data = data.to(device)
    protocol = job.protocol
    model = place(job.build(), protocol, device)
    channels_last = protocol.channels_last and device.type == "cuda"
    batches = training_batches(data, protocol, job.seed, device)
    steps = len(batches) * protocol.epochs
    parts: Iterable[Batch] = batches
    if team is None:
        torch.manual_seed(job.seed)
        forward = as_graphs(model, protocol, device)
        trainer = Trainer(forward, model.parameters(), protocol, steps, device, job.task)
    else:
        torch.manual_seed(team.seed(job.seed))
        trainer = team.trainer(model, protocol, steps, device, job.task)
        parts = team.part(batches)
    keeps = checkpoints is not None and (team is None or team.rank == 0)
    # Where nothing is trained (no module in a frozen host), one epoch measures the training loss.
    epochs = protocol.epochs if trainer.parameters else 1
    begun = 0
    result: dict[str, Any] = {"diverged": False, "reason": "", "train_loss": float("inf")}
    if checkpoints is not None and (state := checkpoints.latest()) is not None:
        model.load_state_dict(state["model"])
        trainer.load_state_dict(state["trainer"])
        batches.load_state_dict(state["batches"])
        if team is None:  # the draws of a team's workers differ
            set_random_state(state["random"], device)
        begun, result["train_loss"] = state["epoch"], state["train_loss"]
        started -= state["train_seconds"]
    try:
        for epoch in range(begun + 1, epochs + 1):
            result["train_loss"] = train_epoch(trainer, parts)
            if checkpoints is not None and keeps:
                state = {
                    "model": model.state_dict(),
                    "trainer": trainer.state_dict(),
                    "batches": batches.state_dict(),
                    "random": random_state(device),
                    "epoch": epoch,
                    "train_loss": result["train_loss"],
                    "train_seconds": time.perf_counter() - started,
                }
                checkpoints.save(state, epoch)
        if job.host is not None and job.host.frozen:
            estimate_statistics(model, statistics_batches(data, protocol, device), protocol, device)
        test = Batches(data.test, 512, data.normalisation, channels_last=channels_last)
        result |= evaluate(model, test, protocol, device, job.task).reported("test")
    except Diverged as divergence:
        reason = str(divergence)
        result |= {"diverged": True, "reason": reason}
        result |= job.task.lost("test")
    result |= {
        "samples": batches.samples_per_epoch * epochs,
        "train_seconds": time.perf_counter() - started,
    }
    if checkpoints is not None and keeps and job.keeps_weights and not result["diverged"]:
        content = io.BytesIO()
        torch.save({name: value.cpu() for name, value in model.state_dict().items()}, content)
        checkpoints.store.write(WEIGHTS, content.getvalue())
    if checkpoints is not None and keeps and job.shown and not result["diverged"]:
        result |= _show(model, data, job.shown, checkpoints.store, device)
    return result


def _show(
    model: nn.Module, data: FinalData, shown: tuple[int, ...], store: Store, device: torch.device
) -> dict[str, Any]:
    """Store the network's heat maps; any failure only leads to a note."""
    try:
        activations = class_activations(model, data, shown, device)
    except Exception as error:
        return {NOTE: f"no Grad-CAM: {shorten(str(error))}"}
    write_activations(store, activations)
    return {}
