"""RF-PCDARTS: partial channels on random features.

Zhang et al., "Differentiable Architecture Search with Random Features", CVPR 2023, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from torch import nn

from sase_ray.strategies.contract import SearchTask
from sase_ray.strategies.one_shot.pc_darts import PCDARTS, PCDARTSAlgorithm
from sase_ray.strategies.one_shot.rf_darts import norm_parameters
from search_spaces.network import Supernet
from trainables.one_shot.algorithm import OneShotAlgorithm


class RFPCDARTS(PCDARTS):
    """PC-DARTS on random features."""

    name: ClassVar[str] = "rf-pc-darts"
    source: ClassVar[str] = "Zhang et al. 2023"
    summary: ClassVar[str] = "PC-DARTS on random features: only batch norms are trained"

    def algorithm(self, task: SearchTask) -> OneShotAlgorithm:
        """Return the algorithm of PC-DARTS on random features."""
        return RFPCDARTSAlgorithm(self, self.weight_protocol(task))


class RFPCDARTSAlgorithm(PCDARTSAlgorithm):
    """PC-DARTS whose weight steps only train batch norms."""

    def block(self) -> Callable[..., nn.Module]:
        """Return the block of partial channels, its batch norms with parameters."""
        return partial(super().block(), affine=True)

    def weight_parameters(self, supernet: Supernet) -> Sequence[nn.Parameter]:
        """Return the parameters of the batch norms."""
        return norm_parameters(supernet)
