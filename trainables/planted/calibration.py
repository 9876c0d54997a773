"""What it costs to change one edge of a plant: the calibration that makes all edges matter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from search_spaces.genotype import Genotype
from search_spaces.network import NetworkSpec
from search_spaces.space import SearchSpace
from trainables.data import Batches, SearchData
from trainables.planted.given import Given
from trainables.tasks.distillation import Distillation
from trainables.training.frozen_host import TrainedHost, enter_host
from trainables.training.loop import Trainer, evaluate, train_epoch, training_batches
from trainables.training.norm_statistics import estimate_statistics, statistics_batches
from trainables.training.protocol import TrainingProtocol

IMITATION = Distillation(match="logits")

PROTOCOL = TrainingProtocol(epochs=4, batch_size=32, optimizer="adamw", lr=0.03, weight_decay=0)
"""Training of a module with one edge changed, which begins with the plant's own parameters on all
other edges. A few steps suffice, and the least of the errors on the way is the cost."""


def costs_of_changes(
    teacher: nn.Module,
    genotype: Genotype,
    *,
    network: NetworkSpec,
    space: SearchSpace,
    host: TrainedHost,
    data: SearchData,
    device: torch.device,
) -> Iterator[tuple[str, Genotype, float]]:
    """Yield for each genotype with one other edge: the variable, the genotype, and its cost.

    The cost is the least normalised error on validation images: squared error over the variance
    of the teacher's logits.

    Args:
        teacher: Network of the plant, in the host.
        genotype: Genotype of the plant.
        network: Specification of the host.
        space: Search space.
        host: The run's frozen host.
        data: Images labelled by the teacher, on the device.
        device: Device of the trainings.

    Raises:
        Diverged: A training diverged, so that the cost is not known.
    """
    host = replace(host, given=Given.of(teacher, genotype))
    for neighbour in space.neighbours(genotype):
        changed = next(
            variable.name
            for variable, own, other in zip(
                space.variables, genotype.ops, neighbour.ops, strict=True
            )
            if own != other
        )
        model = network.with_genotype(neighbour)
        enter_host(model, host)
        yield changed, neighbour, imitation_error(model.to(device), data, device)


def imitation_error(model: nn.Module, data: SearchData, device: torch.device) -> float:
    """Train a network to imitate by `PROTOCOL`; return its least normalised error.

    Raises:
        Diverged: As in `training.loop.train_epoch`.
    """
    batches = training_batches(data, PROTOCOL, 0, device)
    steps = len(batches) * PROTOCOL.epochs
    trainer = Trainer(model, model.parameters(), PROTOCOL, steps, device, IMITATION)
    validation = Batches(data.validation, 512, data.normalisation)
    statistics = statistics_batches(data, PROTOCOL, device)
    errors = []
    for _ in range(PROTOCOL.epochs):
        train_epoch(trainer, batches)
        estimate_statistics(model, statistics, PROTOCOL, device)
        evaluation = evaluate(model, validation, PROTOCOL, device, IMITATION)
        errors.append(evaluation["normalised_error"])
    return min(errors)
