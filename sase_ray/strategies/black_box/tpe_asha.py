"""TPE with ASHA: model-based draws, and the worse trials stopped early.

The combination of Falkner et al., "BOHB", ICML 2018, with ASHA in Hyperband's place.
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
    source: ClassVar[str] = "Falkner et al. 2018; Li et al. 2020"
    summary: ClassVar[str] = "TPE's draws, the worse trials stopped early"

    grace_epochs: int = Field(default=1, ge=1, description="epochs before a trial may be stopped")
    reduction: float = Field(default=3, gt=1, description="one in this many goes on at each rung")

    def scheduler(self, task: SearchTask) -> TrialScheduler:
        """Halve over epochs."""
        return halving(task, self.grace_epochs, self.reduction)

    def first_epochs(self, task: SearchTask) -> int:
        """A trial costs at least the epochs before the first rung."""
        return min(self.grace_epochs, task.job.protocol.epochs)
