"""ADARTS: PC-DARTS whose shown channels are chosen by a channel attention.

Xue and Qin, "Partial Connection Based on Channel Attention for Differentiable Neural Architecture
Search", IEEE Transactions on Industrial Informatics 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

from torch import nn

from sase_ray.strategies.contract import SearchTask
from sase_ray.strategies.one_shot.pc_darts import PCDARTS, PCDARTSAlgorithm
from search_spaces.partial_block import AttentivePartialSuperSASE
from trainables.one_shot.algorithm import OneShotAlgorithm


class ADARTS(PCDARTS):
    """PC-DARTS whose operations see the most important channels."""

    name: ClassVar[str] = "adarts"
    source: ClassVar[str] = "Xue & Qin 2023"
    summary: ClassVar[str] = "PC-DARTS whose channels a channel attention chooses"

    def algorithm(self, task: SearchTask) -> OneShotAlgorithm:
        """Return the first-order algorithm on the channels that a channel attention chooses."""
        return ADARTSAlgorithm(self, self.weight_protocol(task))


class ADARTSAlgorithm(PCDARTSAlgorithm):
    """First-order DARTS on partial channels that a channel attention chooses."""

    def block(self) -> Callable[..., nn.Module]:
        """Return the block whose channels are chosen by their score."""
        return partial(AttentivePartialSuperSASE, parts=self.settings.parts)
