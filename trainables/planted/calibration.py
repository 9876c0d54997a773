"""Calibration of a plant: the cost of changing any one of its edges."""

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


def costs_of_changes(
    teacher: nn.Module,
    genotype: Genotype,
    *,
    network: NetworkSpec,
    space: SearchSpace,
    host: TrainedHost,
    data: SearchData,
    protocol: TrainingProtocol,
    device: torch.device,
) -> Iterator[tuple[str, Genotype, float]]:
    """Yield for each genotype with one other edge: the variable, the genotype, and its cost.

    Each genotype is trained to imitate as in a trial, but begins with the plant's parameters on all
    other edges. Its cost is the least normalised error on validation images after any epoch
    (squared error over the variance of the teacher's logits), minus the error of the planted
    genotype after the last epoch of the same training.

    Args:
        teacher: Network of the plant, in the host.
        genotype: Genotype of the plant.
        network: Specification of the host.
        space: Search space.
        host: The run's frozen host.
        data: Images labelled by the teacher, on the device.
        protocol: Protocol of a trial.
        device: Device of the trainings.

    Raises:
        Diverged: A training diverged, so that the cost is not known.
    """
    host = replace(host, given=Given.of(teacher, genotype))

    def errors(other: Genotype) -> list[float]:
        model = network.with_genotype(other)
        enter_host(model, host)
        return imitation_errors(model.to(device), data, protocol, device)

    own = errors(genotype)[-1]
    for neighbour in space.neighbours(genotype):
        changed = next(
            variable.name
            for variable, op, other in zip(
                space.variables, genotype.ops, neighbour.ops, strict=True
            )
            if op != other
        )
        yield changed, neighbour, min(errors(neighbour)) - own


def imitation_errors(
    model: nn.Module, data: SearchData, protocol: TrainingProtocol, device: torch.device
) -> list[float]:
    """Train a network to imitate; return its normalised error after each epoch.

    Raises:
        Diverged: As in `training.loop.train_epoch`.
    """
    batches = training_batches(data, protocol, 0, device)
    steps = len(batches) * protocol.epochs
    trainer = Trainer(model, model.parameters(), protocol, steps, device, IMITATION)
    validation = Batches(data.validation, 512, data.normalisation)
    statistics = statistics_batches(data, protocol, device)
    errors = []
    for _ in range(protocol.epochs):
        train_epoch(trainer, batches)
        estimate_statistics(model, statistics, protocol, device)
        evaluation = evaluate(model, validation, protocol, device, IMITATION)
        errors.append(evaluation["normalised_error"])
    return errors
