"""The inputs that all trials of one search share, put into Ray's object store once."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.genotype import Genotype
from search_spaces.network import NetworkSpec
from search_spaces.space import SearchSpace
from trainables.data import SearchData
from trainables.tasks.classification import CLASSIFICATION
from trainables.tasks.contract import Task
from trainables.training.cost import samples_of_forward
from trainables.training.frozen_host import HostJob, TrainedHost
from trainables.training.norm_statistics import samples_of_statistics
from trainables.training.protocol import ProxyProtocol, TrainingProtocol

SEED_STEP = 1_000_000
"""Distance between the seeds of one trial; seeds of searches and final trainings are smaller."""


@dataclass(frozen=True)
class SearchJob:
    """A search without its strategy: networks, data and training protocol.

    Args:
        network: Specification of the host.
        space: Search space.
        data: Training and validation images; a search never holds test images.
        protocol: Protocol by which a candidate (or the supernet's weights) is trained.
        seed: Seed of initial weights, batch order and augmentation: the same for every genotype.
            Where the protocol requires several networks per trial, the others' seeds follow
            from it.
        threads: CPU threads of one trial.
        host: Trained host, where the protocol requires a warm one, or the run has one for all.
        host_job: Training of the host that all searches and final trainings of a run share.
        genotypes_to_score: Genotypes that a one-shot search scores at its end.
        task: Task that networks are trained for.
    """

    network: NetworkSpec
    space: SearchSpace
    data: SearchData
    protocol: ProxyProtocol
    seed: int
    threads: int = 1
    host: TrainedHost | None = None
    host_job: HostJob | None = None
    genotypes_to_score: tuple[Genotype, ...] = ()
    task: Task = CLASSIFICATION

    @property
    def seeds(self) -> range:
        """Seeds of a trial's networks."""
        return range(self.seed, self.seed + SEED_STEP * self.protocol.seeds, SEED_STEP)

    @property
    def starts_in_host(self) -> bool:
        """Whether candidates start in a trained host."""
        return self.host_job is not None or self.protocol.warm_host is not None

    @property
    def samples_per_epoch(self) -> int:
        """Samples that one epoch of a trial costs, including its evaluation on validation images.

        In a frozen host it includes the images from which statistics are estimated. The incomplete
        last batch of training images is not counted.
        """
        evaluation = samples_of_forward(len(self.data.validation))
        if self.host_job is not None and self.host_job.protocol.frozen:
            evaluation += samples_of_statistics(self.data)
        return self.protocol.seeds * (self._samples_per_epoch(self.protocol) + evaluation)

    @property
    def samples_per_trial(self) -> int:
        """Samples that one trial costs when it is trained to the end."""
        return self.samples_per_epoch * self.protocol.epochs

    @property
    def samples_of_host(self) -> int:
        """Samples that each search pays for its warm host; 0 where it has none of its own."""
        protocol = None if self.host_job else self.protocol.warm_host
        return self._samples_per_epoch(protocol) * protocol.epochs if protocol else 0

    def _samples_per_epoch(self, protocol: TrainingProtocol) -> int:
        batch_size = min(protocol.batch_size, len(self.data.train))
        return len(self.data.train) // batch_size * batch_size
