"""Random search with weight sharing: one path drawn uniformly for each batch.

Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", UAI 2019,
section 3.2.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from sase_ray.strategies.contract import SearchTask
from sase_ray.strategies.one_shot.sampled import SampledAlgorithm, SharedWeightsSearch
from search_spaces.mixture import Mixture
from trainables.one_shot.algorithm import OneShotAlgorithm


class RandomSearchWithWeightSharing(SharedWeightsSearch):
    """Search by uniform single paths. The weights are trained as in DARTS, as in the paper."""

    name: ClassVar[str] = "rsws"
    source: ClassVar[str] = "Li & Talwalkar 2019"
    summary: ClassVar[str] = "one random path a batch, then candidates by shared weights"

    def algorithm(self, task: SearchTask) -> OneShotAlgorithm:
        """Return the algorithm of single paths."""
        return SinglePath(self, self.weight_protocol(task))


class SinglePath(SampledAlgorithm):
    """Training of shared weights on single paths: one operation per edge."""

    def mixture(self) -> Mixture:
        """Draw one operation for every edge."""
        sizes = [len(variable.choices) for variable in self.space.variables]
        drawn = [int(torch.randint(size, (), generator=self.generator)) for size in sizes]
        return Mixture([{index: 1.0} for index in drawn])
