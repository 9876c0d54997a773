"""What all trials of one search share. Put into Ray's object store once."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.network import NetworkSpec
from search_spaces.space import SearchSpace
from trainables.data import SearchData
from trainables.protocol import TrainingProtocol


@dataclass(frozen=True)
class SearchJob:
    """A search without its strategy: which networks, which data, trained how.

    Args:
        network: the host.
        space: the search space.
        data: training and validation images; a search never holds test images.
        protocol: how a candidate (or the supernet's weights) is trained.
        seed: of initial weights, batch order and augmentation: the same for every genotype.
        threads: CPU threads of one trial.
    """

    network: NetworkSpec
    space: SearchSpace
    data: SearchData
    protocol: TrainingProtocol
    seed: int
    threads: int = 1

    @property
    def samples_per_epoch(self) -> int:
        """Samples that one epoch of a candidate's training sees (the last, short batch is left)."""
        batch_size = min(self.protocol.batch_size, len(self.data.train))
        return len(self.data.train) // batch_size * batch_size

    @property
    def samples_per_trial(self) -> int:
        """Samples that one candidate sees when it is trained to the end."""
        return self.samples_per_epoch * self.protocol.epochs
