"""RF-DARTS: the supernet's features stay random; only alpha and its batch norms are trained.

Zhang et al., "Differentiable Architecture Search with Random Features", CVPR 2023, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sase_ray.strategies.contract import SearchTask
from sase_ray.strategies.one_shot.darts import DARTS, DARTSAlgorithm
from search_spaces.network import Supernet
from search_spaces.super_block import SuperSASE
from trainables.one_shot.algorithm import OneShotAlgorithm


class RFDARTS(DARTS):
    """First-order DARTS on random features."""

    name: ClassVar[str] = "rf-darts"
    source: ClassVar[str] = "Zhang et al. 2023"
    summary: ClassVar[str] = "DARTS on random features: only batch norms are trained"

    def algorithm(self, task: SearchTask) -> OneShotAlgorithm:
        """Return the first-order algorithm on random features."""
        return RFDARTSAlgorithm(self, self.weight_protocol(task))


def norm_parameters(supernet: Supernet) -> Sequence[nn.Parameter]:
    """Return the scales and shifts of all batch norms."""
    norms = (module for module in supernet.modules() if isinstance(module, _BatchNorm))
    return [parameter for norm in norms for parameter in norm.parameters()]


class RFDARTSAlgorithm(DARTSAlgorithm):
    """DARTS whose weight steps only train batch norms, including those of the blocks."""

    def block(self) -> Callable[..., nn.Module]:
        """Return the mixed block, its batch norms with parameters."""
        return partial(SuperSASE, affine=True)

    def weight_parameters(self, supernet: Supernet) -> Sequence[nn.Parameter]:
        """Return the parameters of the batch norms."""
        return norm_parameters(supernet)
