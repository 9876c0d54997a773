"""A plant: a known genotype in the run's frozen host, and the outputs that students imitate."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from search_spaces.errors import UserError
from search_spaces.genotype import Genotype
from search_spaces.network import NetworkSpec
from search_spaces.ops import load_operations
from search_spaces.space import SearchSpace
from trainables.data import (
    Augmentation,
    Batches,
    FinalData,
    LabelledImages,
    SearchData,
    TargetImages,
)
from trainables.hardware.device import take_device
from trainables.persistence.checkpoint import Checkpoints
from trainables.persistence.store import Store
from trainables.planted.calibration import costs_of_changes
from trainables.planted.draw import Draw, build_teacher
from trainables.planted.given import Given
from trainables.planted.settings import PlantSettings
from trainables.tasks.distillation import label_by
from trainables.training.frozen_host import TrainedHost, enter_host
from trainables.training.loop import Diverged
from trainables.training.norm_statistics import estimate_statistics, statistics_batches
from trainables.training.protocol import TrainingProtocol

IMAGES = 128
"""Number of training images by which a plant's parameters are drawn."""

CALIBRATED_ON = 1000
"""Largest number of training images, and of validation images, for the calibration."""


@dataclass(frozen=True)
class Plant:
    """A plant, and the logits of its network.

    Attributes:
        text: Genotype in its text form.
        number: Number of the plant, which draws it.
        draws: Number of plants that were drawn, with those that could not be calibrated.
        costs: Least cost of a change by variable: share of the variance of the logits; empty
            without calibration.
        seconds: Device-seconds of drawing and calibration.
        logits: Logits by view and part, float32 (N, K): `search.train`, `search.validation`,
            `final.train`, `final.test`.
        stages: Stage of each block of the host.
        given: Parameters that students begin with, see `Given`; empty if they get none.
    """

    text: str
    number: int
    draws: int
    costs: Mapping[str, float]
    seconds: float
    logits: Mapping[str, Tensor]
    stages: Sequence[int]
    given: Mapping[str, Tensor]

    @property
    def genotype(self) -> Genotype:
        """The genotype that is to be found."""
        return Genotype.parse(self.text)

    def in_host(self, host: TrainedHost) -> TrainedHost:
        """Return the host in which students begin with what is given of the plant."""
        if not self.given:
            return host
        return replace(host, given=Given(self.genotype, tuple(self.stages), self.given))

    def label_search(self, data: SearchData) -> SearchData:
        """Return the data of searches with the plant's logits as targets."""
        return replace(
            data,
            train=self._labelled(data.train, "search.train"),
            validation=self._labelled(data.validation, "search.validation"),
            augmentation=Augmentation(),  # the logits belong to the unchanged images
        )

    def label_final(self, data: FinalData) -> FinalData:
        """Return the data of the final protocol with the plant's logits as targets."""
        return replace(
            data,
            train=self._labelled(data.train, "final.train"),
            test=self._labelled(data.test, "final.test"),
            augmentation=Augmentation(),
        )

    def _labelled(self, part: LabelledImages, name: str) -> TargetImages:
        return TargetImages(part.images, part.labels, self.logits[name])


@dataclass(frozen=True)
class PlantJob:
    """Drawing and calibration of one plant.

    Args:
        network: Specification of the host.
        space: Search space that the genotype is drawn from.
        search: Data that searches read.
        final: Data that the final protocol reads.
        proxy: Protocol by which searches train, and the plant's statistics are estimated for them.
        protocol: The same of final trainings.
        settings: Choice and calibration.
        number: Number of the plant.
        threads: CPU threads.
    """

    network: NetworkSpec
    space: SearchSpace
    search: SearchData
    final: FinalData
    proxy: TrainingProtocol
    protocol: TrainingProtocol
    settings: PlantSettings
    number: int
    threads: int = 1


def make_plant(job: PlantJob, host: TrainedHost, kept: Store | None = None) -> Plant:
    """Draw plants until one is calibrated, see `calibration`; label all images by its network.

    Args:
        job: Plant to make.
        host: The run's frozen host.
        kept: Store of the plant; one that is there already is not made again.

    Raises:
        UserError: None of the `settings.draws` plants could be calibrated.
    """
    checkpoints = None if kept is None else Checkpoints(kept)
    if checkpoints is not None and (saved := checkpoints.latest()) is not None:
        return Plant(**saved)
    started = time.perf_counter()
    device = take_device(job.threads)
    load_operations(job.space)
    search = job.search.to(device)
    # A stream of its own: a search with this seed must not draw the plant as its first genotype.
    rng = random.Random(f"plant {job.number}")
    generator = torch.Generator().manual_seed(job.number)
    draws, costs = 0, None
    while costs is None:
        if draws == job.settings.draws:
            raise UserError(
                f"none of {draws} plants drawn from space {job.space.name!r} could be calibrated "
                f"to planted.share {job.settings.share:g}: choose a smaller share, or more draws"
            )
        draws += 1
        genotype = job.space.sample(rng)
        teacher = draw_teacher(job, genotype, host, generator, device)
        _estimate(teacher, search, job.proxy, device)
        costs = _calibrated(job, teacher, genotype, host, search, device)
    labelled = label_by(teacher, search)
    known = Given.of(teacher, genotype)
    final = job.final.to(device)
    _estimate(teacher, final, job.protocol, device)
    final = label_by(teacher, final)
    parts = {
        "search.train": labelled.train,
        "search.validation": labelled.validation,
        "final.train": final.train,
        "final.test": final.test,
    }
    logits = {name: part.targets.cpu() for name, part in parts.items()}
    seconds = time.perf_counter() - started
    given = known.state if job.settings.given else {}
    plant = Plant(
        str(genotype), job.number, draws, costs, seconds, logits, list(known.stages), given
    )
    if checkpoints is not None:
        checkpoints.save(vars(plant), 0)
    return plant


def _estimate(
    teacher: nn.Module,
    data: SearchData | FinalData,
    protocol: TrainingProtocol,
    device: torch.device,
) -> None:
    """Estimate the statistics of a plant as those of a student are before its evaluation."""
    estimate_statistics(teacher, statistics_batches(data, protocol, device), protocol, device)


def draw_teacher(
    job: PlantJob,
    genotype: Genotype,
    host: TrainedHost,
    generator: torch.Generator,
    device: torch.device,
) -> nn.Module:
    """Return the host with modules of a genotype whose parameters are drawn, see `Draw`."""
    data = job.search
    ((images, _),) = Batches(data.train, IMAGES, data.normalisation).first()
    images = images.to(device)
    plain = job.network.with_baseline("none")
    enter_host(plain, host)
    with torch.no_grad():
        variance = float(plain.to(device).eval()(images).var(0, unbiased=False).sum())
    teacher = build_teacher(job.network, genotype)
    enter_host(teacher, host)
    Draw(teacher.to(device), job.space, images, variance, generator).run()
    return teacher


def _calibrated(
    job: PlantJob,
    teacher: nn.Module,
    genotype: Genotype,
    host: TrainedHost,
    search: SearchData,
    device: torch.device,
) -> dict[str, float] | None:
    """Return the least cost of a change by variable; None if one is not known to cost the share."""
    share = job.settings.share
    if share == 0:
        return {}
    least: dict[str, float] = {}
    try:
        data = label_by(teacher, _first(search))
        changes = costs_of_changes(
            teacher,
            genotype,
            network=job.network,
            space=job.space,
            host=host,
            data=data,
            protocol=job.proxy,
            device=device,
        )
        for changed, _, cost in changes:
            if not cost >= share:
                return None
            least[changed] = min(cost, least.get(changed, float("inf")))
    except (Diverged, UserError):  # UserError: the logits are not finite
        return None
    return least


def _first(data: SearchData) -> SearchData:
    """Return at most `CALIBRATED_ON` images of each part."""
    return replace(data, train=_few(data.train), validation=_few(data.validation))


def _few(part: LabelledImages) -> LabelledImages:
    return part.select(torch.arange(min(len(part), CALIBRATED_ON)))
