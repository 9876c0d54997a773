"""Adaptation of a network of one's own to images of one's own, by searched attention modules."""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ray import cloudpickle
from rich.console import Console
from torch import nn

from sase_ray.commands.compare import NETWORKS, run_comparison
from sase_ray.config import Config, load_config
from sase_ray.execution.experiment import FIRST_FINAL_SEED, Experiment, Problem
from sase_ray.execution.images import split_images
from sase_ray.results.folder import check_new
from search_spaces.backbones.own_network import check_network, fit_network
from search_spaces.backbones.registry import OWN_PREFIX
from search_spaces.errors import UserError, shorten
from search_spaces.genotype import Genotype
from search_spaces.user_paths import user_path
from trainables.data import ImageData, Normalisation
from trainables.data.own_images import own_arrays
from trainables.persistence.kept_files import INPUTS
from trainables.persistence.store import write_whole
from trainables.training.protocol import PRETRAINED

MODULES = {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0}
"""Training of modules in a frozen host, as in the bundled `adapt` experiments."""

DEFAULTS: Mapping[str, Any] = {
    "baselines": ["none", "se"],
    "host": {"epochs": 10, "batch_size": 64, "lr": 0.1},
    "proxy": {
        **{"averaging": 0, "seeds": 1, "warm_host": None},
        **{"epochs": 5, "batch_size": 64, **MODULES},
    },
    "final": {"epochs": 10, "batch_size": 64, "train_size": None, **MODULES},
}
"""Settings of an adaptation where the configuration has none."""

IMAGES, NETWORK = "images.npz", "network.pt"
"""Names of the files in the run's folder that hold images and network."""

PASSES = 30
"""Budget of a search by default, in passes over its training images."""


@dataclass(frozen=True)
class Adapted:
    """A network with the attention modules that adapt it.

    Attributes:
        network: Network from images (B, C, H, W), normalised by `normalisation`, to logits; in
            evaluation mode, on the CPU.
        genotype: Genotype of its modules.
        accuracies: Accuracy on held-out test images, 0 to 1, by the strategy that found the modules
            and by hand-designed module; `none` is the network with statistics (and a classifier
            where it is new) of the images, and no module.
        strategy: Strategy that found the modules.
        normalisation: Mean and deviation of each channel, of pixels from 0 to 1.
        table: One row per module, with intervals and costs, best first.
        folder: Folder of the run.
    """

    network: nn.Module
    genotype: Genotype
    accuracies: Mapping[str, float]
    strategy: str
    normalisation: Normalisation
    table: pd.DataFrame
    folder: Path

    @property
    def accuracy(self) -> float:
        """Accuracy of the network on held-out test images, 0 to 1."""
        return self.accuracies[self.strategy]

    @classmethod
    def load(cls, folder: str | Path) -> Adapted:
        """Read the result of an adaptation from its folder, also after it was resumed.

        This runs the code of the network in the folder, as `adapt` does.

        Raises:
            UserError: It is no folder of an adaptation that has ended well.
        """
        folder = user_path(folder)
        problem = Problem.of(load_config(folder / "config.yaml"))
        (strategy, *_) = problem.config.strategies
        path = folder / NETWORKS / f"{strategy}-{FIRST_FINAL_SEED}.pt"
        if not path.is_file():
            raise UserError(f"{folder} has no adapted network: {path} is missing")
        finals = pd.read_parquet(folder / "final.parquet").groupby("name")
        genotype = Genotype.parse(finals["module"].first()[strategy])
        network = problem.network.with_genotype(genotype)
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return cls(
            network.eval(),
            genotype,
            finals["test_accuracy"].mean().to_dict(),
            strategy,
            problem.final_data.normalisation,
            pd.read_parquet(folder / "strategies.parquet"),
            folder,
        )


def adapt(
    model: nn.Module,
    dataset: Any,
    *,
    strategy: str = "darts",
    test: Any = None,
    normalisation: Any = None,
    classifier: str | None = None,
    config: Config | Mapping[str, Any] | str | Path | None = None,
    console: Console | None = None,
    **overrides: Any,
) -> Adapted:
    """Search attention modules that adapt a frozen network to images, and train them inside it.

    The network is copied and frozen; only the statistics of its batch norms follow, and a new
    classifier where the classes are others. A strategy searches a genotype, whose modules are put
    at the end of every residual branch. They are trained by the final protocol on training and
    validation images, and tested beside hand-designed modules on images that the search did not
    read. A run that was interrupted is continued by `resume`; then `Adapted.load` returns this.

    Args:
        model: Network from images (B, C, H, W) to logits (B, classes), such as one of torchvision
            or timm. It is not changed.
        dataset: Name of a data set, or a pair of images and their classes, or a torch data set of
            such pairs; see `trainables.data.own_images.own_arrays`.
        strategy: Name of the strategy.
        test: Test images of one's own, as for `dataset`; by default 20% are held out.
        normalisation: Mean and deviation per channel that the network expects, of pixels from 0
            to 1: a pair, or an object with `mean` and `std`, such as torchvision's
            ``weights.transforms()``. Default: what timm's networks state, otherwise the images'.
        classifier: "kept" or "new"; by default it is kept if it has as many classes.
        config: As for `compare`, in place of the `DEFAULTS` of this command.
        console: As for `compare`.
        overrides: As for `compare`, such as ``budget=100_000`` (default: 30 passes over the
            training images) or ``data={"image_size": 64, "channels": 3}``.

    Raises:
        UserError: The network has no residual branch, or does not fit the images, or anything
            that `compare` raises; then nothing is left.
    """
    named = isinstance(dataset, str)
    if named and test is not None:
        raise UserError("test is for images of your own: a data set has its own test images")
    about = overrides | {"dataset": dataset if named else "arrays"}
    settings = load_config(DEFAULTS if config is None else config, about)
    run = settings.run or f"adapt-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    forced = {"run": run, "strategies": [strategy], "seeds": 1, "task": "classification"}
    settings = load_config(settings, {**forced, "final": {"keep_weights": True}})
    folder = Path(settings.results) / run
    check_new(folder)
    try:
        if not named:
            settings = _with_images(settings, own_arrays(dataset, test), folder)
        data, splits = split_images(settings.dataset, settings.data)
        settings = _with_normalisation(settings, normalisation, model, data.images.shape[1])
        settings = _with_network(settings, model, data, classifier, folder)
        if config is None and "budget" not in overrides:
            settings = load_config(settings, {"budget": PASSES * len(splits.train)})
        experiment = Experiment.of(settings)
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    run_comparison(experiment, console)
    return Adapted.load(folder)


def _with_images(config: Config, arrays: Mapping[str, Any], folder: Path) -> Config:
    """Write images of one's own into the run's folder."""
    inputs = _made(folder)
    write_whole(inputs / IMAGES, lambda path: _save(path, arrays))
    data = {"root": str(inputs), "options": {"file": IMAGES}}
    return load_config(config, {"data": data})


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    with path.open("wb") as file:  # np.savez would add an ending to a path
        np.savez(file, **arrays)


def _made(folder: Path) -> Path:
    try:
        (folder / INPUTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        shown = shorten(str(folder))
        raise UserError(f"results folder {shown} cannot be made: {error.strerror}") from None
    return folder.resolve() / INPUTS


def _with_normalisation(config: Config, given: Any, model: nn.Module, channels: int) -> Config:
    """State what the network expects of its images, as far as that is known."""
    if given is None and config.data.normalisation is None:
        stated = getattr(model, "pretrained_cfg", None) or {}
        given = (stated.get("mean") or (), stated.get("std") or ())
        if len(given[0]) != channels:
            return config
    if given is None:
        return config
    try:
        mean, std = given if isinstance(given, tuple | list) else (given.mean, given.std)
        values = {"mean": [float(v) for v in mean], "std": [float(v) for v in std]}
    except (AttributeError, TypeError, ValueError):
        raise UserError(
            "normalisation is a pair (mean, std) of one number per channel, or has both"
        ) from None
    return load_config(config, {"data": {"normalisation": values}})


def _with_network(
    config: Config, model: nn.Module, data: ImageData, classifier: str | None, folder: Path
) -> Config:
    """Check that the network fits the images, and write it into the run's folder."""
    if not isinstance(model, nn.Module):
        raise UserError(f"model is a {type(model).__name__}, expected a torch.nn.Module")
    channels, height, width = data.images.shape[1:]
    shape = channels, height, width
    try:
        content = cloudpickle.dumps(copy.deepcopy(model).cpu().float())
        network = cloudpickle.loads(content)
    except Exception as error:  # whatever the classes of the network raise
        raise UserError(f"the network cannot be pickled: {shorten(str(error))}") from error
    classes = check_network(network, shape, "the network").shape[1]
    fit_network(network, data.num_classes, shape, lambda channels, size, stage: None, "the network")
    if classifier is None:
        classifier = "kept" if classes == data.num_classes else "new"
    elif classifier == "kept" and classes != data.num_classes:
        raise UserError(
            f"classifier is 'kept', but the network has {classes} classes, and the images have "
            f"{data.num_classes}: leave it out"
        )
    path = _made(folder) / NETWORK
    write_whole(path, lambda partial: partial.write_bytes(content))
    return load_config(
        config,
        {
            "backbone": {
                "name": f"{OWN_PREFIX}{path}",
                "options": {"sha256": hashlib.sha256(content).hexdigest()},
            },
            "host": {"weights": PRETRAINED, "classifier": classifier},
        },
    )
