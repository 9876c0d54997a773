"""TPE with ASHA: model-based draws, and the worse trials stopped early.

TPE: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011. ASHA: Li et al.,
"A System for Massively Parallel Hyperparameter Tuning", MLSys 2020.

The model learns from trials that were stopped early as Optuna's TPE does from pruned ones: all of
them count as worse than any complete trial, those that were trained longer come before the others,
and losses are only compared within an epoch. It is not BOHB (Falkner et al., ICML 2018), which has
one model per fidelity.
"""

from typing import ClassVar

from pydantic import Field
from ray.tune.schedulers import TrialScheduler

from sase_ray.strategies.black_box.asha import halving
from sase_ray.strategies.black_box.tpe import TPE
from sase_ray.strategies.contract import SearchTask


class TPEWithASHA(TPE):
    """TPE's draws under asynchronous successive halving."""

    name: ClassVar[str] = "tpe-asha"
    source: ClassVar[str] = "Bergstra et al. 2011; Li et al. 2020"
    summary: ClassVar[str] = "TPE's draws, the worse trials stopped early"

    grace_epochs: int = Field(default=1, ge=1, description="epochs before a trial may be stopped")
    reduction: float = Field(default=3, gt=1, description="1 in this many continues at each rung")

    def scheduler(self, task: SearchTask) -> TrialScheduler:
        """Return a scheduler that halves the trials over epochs."""
        return halving(task, self.grace_epochs, self.reduction)

    def first_epochs(self, task: SearchTask) -> int:
        """Return the minimum number of epochs of a trial: those before the first rung."""
        return min(self.grace_epochs, task.job.protocol.epochs)
