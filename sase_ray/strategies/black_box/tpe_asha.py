"""TPE with ASHA: model-based draws, and the worse trials stopped early.

TPE: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011. ASHA: Li et al.,
"A System for Massively Parallel Hyperparameter Tuning", MLSys 2020.

The model learns from trials that were stopped early as Optuna's does from pruned ones: all of them
are worse than any complete trial, the longer trained come before the others, and losses are
compared within an epoch only. It is not BOHB (Falkner et al., ICML 2018), which has one model for
each fidelity.
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
    reduction: float = Field(default=3, gt=1, description="one in this many goes on at each rung")

    def scheduler(self, task: SearchTask) -> TrialScheduler:
        """Halve over epochs."""
        return halving(task, self.grace_epochs, self.reduction)

    def first_epochs(self, task: SearchTask) -> int:
        """A trial costs at least the epochs before the first rung."""
        return min(self.grace_epochs, task.job.protocol.epochs)
