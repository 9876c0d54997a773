"""A frozen host: trained before the data are shifted, then fixed while modules adapt it.

Where the host cannot compensate for its attention modules, their scores differ by much more than
the noise of training. Only the statistics of its batch norms follow: those of each batch in
training, and those of shifted training images, with the modules in place, before each evaluation
(Li et al., "Revisiting Batch Normalization for Practical Domain Adaptation", 2016,
arXiv:1603.04779).
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from search_spaces.baselines import Tunes
from search_spaces.errors import UserError, shorten
from search_spaces.network import NetworkSpec
from trainables.data import Batches, SearchData
from trainables.hardware.device import take_device
from trainables.persistence.checkpoint import Checkpoints
from trainables.persistence.store import Store
from trainables.training.loop import (
    Diverged,
    Trainer,
    evaluate,
    place,
    train_epoch,
    training_batches,
)
from trainables.training.norm_statistics import estimate_statistics, statistics_batches
from trainables.training.protocol import PRETRAINED, HostProtocol


@dataclass(frozen=True)
class TrainedHost:
    """A host that was trained without attention, for modules to be inserted into.

    Attributes:
        state: Parameters and buffers of the host by name.
        samples: Training samples that it has seen.
        seconds: Device-seconds of its training.
        frozen: Whether its parameters stay as they are.
        accuracy: Accuracy on unshifted validation images, 0 to 1; None if not measured.
        given: Function that puts parameters that are known into a network with attention, if there
            are any: those of a planted module.
    """

    state: Mapping[str, Tensor]
    samples: int
    seconds: float
    frozen: bool = False
    accuracy: float | None = None
    given: Callable[[nn.Module], None] | None = None


@dataclass(frozen=True)
class HostJob:
    """Training of the host that all searches and final trainings of a run share.

    Args:
        network: Specification of the host.
        data: Images before the shift.
        shifted: The same images after the shift.
        protocol: Protocol by which the host is trained.
        threads: CPU threads.
    """

    network: NetworkSpec
    data: SearchData
    shifted: SearchData
    protocol: HostProtocol
    threads: int = 1

    def check(self, options: Mapping[str, Any], workers: int) -> None:
        """Check the job as far as possible before the training.

        Args:
            options: Options of the backbone.
            workers: Number of workers that train one final network together.

        Raises:
            UserError: The weights are missing or of another network, or several workers would
                train a network most of which is frozen.
        """
        if workers > 1:
            raise UserError(
                f"final.workers is {workers}, and host is set: modules in a trained host are "
                f"trained by one worker, so leave final.workers out"
            )
        if self.protocol.weights == PRETRAINED:
            if not (options.get("weights") or options.get("pretrained")):
                raise UserError(
                    f"host.weights is {PRETRAINED!r}, but backbone.options load no weights: set "
                    f"weights: DEFAULT (torchvision) or pretrained: true (timm) there"
                )
        elif self.protocol.weights is not None:
            self.load_weights()

    def load_weights(self) -> dict[str, Tensor]:
        """Return the weights in the file that the protocol names.

        Raises:
            UserError: The file cannot be read, or is of another network.
        """
        path = str(self.protocol.weights)
        shown = f"host.weights: {shorten(path)}"
        if not os.path.isfile(path):
            raise UserError(f"{shown} is no file: give the state dict of a trained host")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, ValueError, EOFError, OSError) as error:
            raise UserError(f"{shown} is no state dict: {shorten(str(error))}") from None
        with torch.device("meta"):
            own = self.network.build().state_dict()
        if not isinstance(state, Mapping):
            raise UserError(f"{shown} is no state dict, but a {type(state).__name__}")
        for name in [*own, *state]:
            shapes = [
                tuple(s[name].shape) if isinstance(s.get(name), Tensor) else "missing"
                for s in (own, state)
            ]
            if shapes[0] != shapes[1]:
                raise UserError(
                    f"{shown} is of another network than backbone {self.network.backbone!r}: "
                    f"{name} is {shapes[1]}, expected {shapes[0]}"
                )
        return dict(state)


def train_frozen_host(job: HostJob, kept: Store | None = None) -> TrainedHost:
    """Train the host on the data before the shift, and estimate its statistics on those after it.

    With `weights` from a file nothing is trained; with pretrained ones only the classifier is,
    which is the network's last linear layer.

    Args:
        job: Training to run.
        kept: Store of the trained host; a host that is there already is not trained again.

    Raises:
        Diverged: The host has no finite weights.
        UserError: As in `HostJob.load_weights`.
    """
    checkpoints = None if kept is None else Checkpoints(kept)
    if checkpoints is not None and (saved := checkpoints.latest()) is not None:
        return TrainedHost(**saved)
    started = time.perf_counter()
    protocol = job.protocol
    device = take_device(job.threads)
    data = job.data.to(device)
    model = place(job.network.build(seed=protocol.seed), protocol, device)
    batches = training_batches(data, protocol, protocol.seed, device)
    samples = 0
    if protocol.weights not in (None, PRETRAINED):
        model.load_state_dict(job.load_weights())
    else:
        trained: nn.Module = model
        if protocol.weights == PRETRAINED:
            *_, trained = (m for m in model.modules() if isinstance(m, nn.Linear))
        torch.manual_seed(protocol.seed)
        steps = len(batches) * protocol.epochs
        trainer = Trainer(model, trained.parameters(), protocol, steps, device)
        for _ in range(protocol.epochs):
            train_epoch(trainer, batches)
        samples = batches.samples_per_epoch * protocol.epochs
    validation = Batches(data.validation, 512, data.normalisation)
    accuracy = evaluate(model, validation, protocol, device)["accuracy"]
    shifted = job.shifted.to(device)
    estimate_statistics(model, statistics_batches(shifted, protocol, device), protocol, device)
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    if not all(value.isfinite().all() for value in state.values()):
        raise Diverged("the host's weights are not finite")
    seconds = time.perf_counter() - started
    host = TrainedHost(state, samples, seconds, protocol.frozen, accuracy)
    if checkpoints is not None:
        checkpoints.save(vars(host), protocol.epochs)
    return host


def enter_host(model: nn.Module, host: TrainedHost, tunes: Tunes = "modules") -> None:
    """Copy the host's weights into a network with attention; its attention keeps its own.

    Args:
        model: Network, built by the `NetworkSpec` of the same host.
        host: Trained host.
        tunes: Trainable part of a frozen host's network: the attention modules, also the scales
            and shifts of the host's batch norms, or everything.

    Raises:
        ValueError: The host is of another network.
    """
    unknown = host.state.keys() - model.state_dict().keys()
    if unknown:
        raise ValueError(f"the trained host is of another network: it has {min(unknown)!r}")
    model.load_state_dict(dict(host.state), strict=False)
    if host.given is not None:
        host.given(model)
    if not host.frozen or tunes == "all":
        return
    norms = {
        f"{name}.{kind}"
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        for kind in ("weight", "bias")
    }
    for name, parameter in model.named_parameters():
        if name in host.state and not (tunes == "norms" and name in norms):
            parameter.requires_grad_(False)
