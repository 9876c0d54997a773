"""A frozen host: trained before the data are shifted, then fixed while modules adapt it.

The host may also come from another data set, from a file, or from its user. If the classes are
others, it gets a new classifier, which is trained once in the frozen host, and then together with
the modules, for all modules alike.

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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from search_spaces.backbones.own_network import last_linear
from search_spaces.backbones.registry import OWN_PREFIX
from search_spaces.backbones.weight_files import state_dict_in
from search_spaces.baselines import Tunes
from search_spaces.errors import UserError, shorten
from search_spaces.network import NetworkSpec
from trainables.data import Batches, SearchData
from trainables.hardware.device import take_device
from trainables.persistence.checkpoint import Checkpoints
from trainables.persistence.store import Store
from trainables.training.cuda_graphs import as_graphs
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
        accuracy: Accuracy on validation images of the source, or unshifted ones, 0 to 1; None if
            the host had no classifier for them.
        given: Function that puts parameters that are known into a network with attention, if there
            are any: those of a planted module.
        classifier: Names of the parameters of a new classifier, which stays trainable.
    """

    state: Mapping[str, Tensor]
    samples: int
    seconds: float
    frozen: bool = False
    accuracy: float | None = None
    given: Callable[[nn.Module], None] | None = None
    classifier: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostJob:
    """Training of the host that all searches and final trainings of a run share.

    Args:
        network: Specification of the host, as all modules are inserted into it.
        data: Images that it is trained on: the source, or those before the shift.
        shifted: Images that modules adapt it to.
        protocol: Protocol by which the host is trained.
        threads: CPU threads.
    """

    network: NetworkSpec
    data: SearchData
    shifted: SearchData
    protocol: HostProtocol
    threads: int = 1

    @property
    def own_network(self) -> NetworkSpec:
        """Specification of the host with a classifier for the images that it is trained on."""
        return replace(self.network, num_classes=self.data.num_classes)

    @property
    def new_classifier(self) -> bool:
        """Whether the host gets a new classifier."""
        if self.protocol.classifier is None:
            return self.data.num_classes != self.shifted.num_classes
        return self.protocol.classifier == "new"

    def check(self, options: Mapping[str, Any], workers: int) -> None:
        """Check the job as far as possible before the training.

        Args:
            options: Options of the backbone.
            workers: Number of workers that train one final network together.

        Raises:
            UserError: The weights are missing or of another network, source and target do not fit,
                or several workers would train a network most of which is frozen.
        """
        if workers > 1:
            raise UserError(
                f"final.workers is {workers}, and host is set: modules in a trained host are "
                f"trained by one worker, so leave final.workers out"
            )
        if self.data.shape != self.shifted.shape:
            source, target = ("x".join(map(str, v.shape)) for v in (self.data, self.shifted))
            raise UserError(
                f"images of host.source {self.data.name!r} are {source}, those of "
                f"{self.shifted.name!r} {target} (channels, height, width): make them alike by "
                f"image_size and channels, of host.source or of data"
            )
        classes = self.data.num_classes, self.shifted.num_classes
        if self.protocol.classifier == "kept" and classes[0] != classes[1]:
            raise UserError(
                f"host.classifier is 'kept', but {self.data.name!r} has {classes[0]} classes and "
                f"{self.shifted.name!r} {classes[1]}: leave it out for a new classifier"
            )
        if self.protocol.weights == PRETRAINED:
            self._check_pretrained(options)
        elif self.protocol.weights is not None:
            self.load_weights()

    def _check_pretrained(self, options: Mapping[str, Any]) -> None:
        loads = options.get("weights") or options.get("pretrained")
        if not (loads or self.network.backbone.startswith(OWN_PREFIX)):
            raise UserError(
                f"host.weights is {PRETRAINED!r}, but backbone.options load no weights: set "
                f"weights: DEFAULT (torchvision) or pretrained: true (timm) there"
            )
        if self.protocol.classifier == "kept":
            first, second = (last_linear(self.own_network.build(seed=s))[1] for s in (0, 1))
            if not torch.equal(first.weight, second.weight):
                raise UserError(
                    f"host.classifier is 'kept', but the backbone loads no classifier of "
                    f"{self.data.num_classes} classes: leave it out"
                )

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
            state = state_dict_in(torch.load(path, map_location="cpu", weights_only=True))
        except (RuntimeError, pickle.UnpicklingError, ValueError, EOFError, OSError) as error:
            raise UserError(f"{shown} is no state dict: {shorten(str(error))}") from None
        with torch.device("meta"):
            model = self.own_network.build()
        own = model.state_dict()
        if not isinstance(state, Mapping):
            raise UserError(f"{shown} is no state dict, but a {type(state).__name__}")
        replaced = classifier_names(model) if self.protocol.classifier == "new" else ()
        for name in [name for name in [*own, *state] if name not in replaced]:
            shapes = [
                tuple(s[name].shape) if isinstance(s.get(name), Tensor) else "missing"
                for s in (own, state)
            ]
            if shapes[0] != shapes[1]:
                raise UserError(
                    f"{shown} is of another network than backbone {self.network.backbone!r}: "
                    f"{name} is {shapes[1]}, expected {shapes[0]}"
                )
        return {name: value for name, value in state.items() if name not in replaced}


def classifier_names(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the parameters of a network's classifier."""
    path, layer = last_linear(network)
    return tuple(f"{path}.{name}" for name, _ in layer.named_parameters())


def train_frozen_host(job: HostJob, kept: Store | None = None) -> TrainedHost:
    """Train the host on its own images, and estimate its statistics on those it is to meet.

    With `weights` from a file nothing is trained; with pretrained ones only the classifier is,
    which is the network's last linear layer, and not if it is kept. A new classifier is trained by
    the same protocol on the images that the host is to meet.

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
    data, shifted = job.data.to(device), job.shifted.to(device)
    model = place(job.own_network.build(seed=protocol.seed), protocol, device)
    samples = 0
    if protocol.weights is None:
        samples = _train(model, model.parameters(), data, protocol, device)
    elif protocol.weights != PRETRAINED:
        model.load_state_dict(job.load_weights(), strict=protocol.classifier != "new")
    elif protocol.classifier is None:
        samples = _train(model, last_linear(model)[1].parameters(), data, protocol, device)
    accuracy = None
    if protocol.weights is None or protocol.classifier != "new":
        validation = Batches(data.validation, 512, data.normalisation)
        accuracy = evaluate(model, validation, protocol, device)["accuracy"]
    classifier: tuple[str, ...] = ()
    if job.new_classifier:
        model = _with_new_classifier(model, job, device)
        classifier = classifier_names(model)
        layer = last_linear(model)[1]
        samples += _train(model, layer.parameters(), shifted, protocol, device)
    estimate_statistics(model, statistics_batches(shifted, protocol, device), protocol, device)
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    if not all(value.isfinite().all() for value in state.values()):
        raise Diverged("the host's weights are not finite")
    seconds = time.perf_counter() - started
    host = TrainedHost(state, samples, seconds, protocol.frozen, accuracy, classifier=classifier)
    if checkpoints is not None:
        checkpoints.save(vars(host), protocol.epochs)
    return host


def _train(
    model: nn.Module,
    parameters: Iterable[nn.Parameter],
    data: SearchData,
    protocol: HostProtocol,
    device: torch.device,
) -> int:
    """Train a part of the host's parameters; return the training samples seen."""
    batches = training_batches(data, protocol, protocol.seed, device)
    torch.manual_seed(protocol.seed)
    forward = as_graphs(model, protocol, device)
    trainer = Trainer(forward, parameters, protocol, len(batches) * protocol.epochs, device)
    for _ in range(protocol.epochs):
        train_epoch(trainer, batches)
    return batches.samples_per_epoch * protocol.epochs


def _with_new_classifier(model: nn.Module, job: HostJob, device: torch.device) -> nn.Module:
    """Return the host with a classifier for the images that it is to meet, drawn by the seed."""
    new = job.network.build(seed=job.protocol.seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(job.protocol.seed)
        last_linear(new)[1].reset_parameters()
    old = classifier_names(model)
    state = {name: value for name, value in model.state_dict().items() if name not in old}
    new.load_state_dict(state, strict=False)
    return place(new, job.protocol, device)


def enter_host(model: nn.Module, host: TrainedHost, tunes: Tunes = "modules") -> None:
    """Copy the host's weights into a network with attention; its attention keeps its own.

    Args:
        model: Network, built by the `NetworkSpec` of the same host.
        host: Trained host.
        tunes: Trainable part of a frozen host's network: the attention modules, also the scales
            and shifts of the host's batch norms, or everything. A new classifier always is.

    Raises:
        ValueError: The host is of another network.
    """
    unknown = host.state.keys() - model.state_dict().keys()
    if unknown:
        raise ValueError(f"the trained host is of another network: it has {min(unknown)!r}")
    model.load_state_dict({**model.state_dict(), **host.state}, strict=False)
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
        free = name in host.classifier or (tunes == "norms" and name in norms)
        if name in host.state and not free:
            parameter.requires_grad_(False)
