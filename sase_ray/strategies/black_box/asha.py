"""ASHA: random search that stops the worse trials early.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020 (asynchronous
successive halving, algorithm 2); with random draws, the strong baseline of Li and Talwalkar 2019.
"""

from typing import ClassVar

from pydantic import Field
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from sase_ray.strategies.black_box.random import RandomSearch
from sase_ray.strategies.contract import SearchTask


class ASHA(RandomSearch):
    """Random search with asynchronous successive halving."""

    name: ClassVar[str] = "asha"
    source: ClassVar[str] = "Li et al. 2020 (Ray Tune's ASHAScheduler)"
    summary: ClassVar[str] = "random search, the worse trials stopped early"
    tries_blindly: ClassVar[bool] = False

    grace_epochs: int = Field(default=1, ge=1, description="epochs before a trial may be stopped")
    reduction: float = Field(default=3, gt=1, description="1 in this many continues at each rung")

    def scheduler(self, task: SearchTask) -> TrialScheduler:
        """Return a scheduler that halves the trials over epochs."""
        return halving(task, self.grace_epochs, self.reduction)

    def first_epochs(self, task: SearchTask) -> int:
        """Return the minimum number of epochs of a trial: those before the first rung."""
        return min(self.grace_epochs, task.job.protocol.epochs)


def halving(task: SearchTask, grace_epochs: int, reduction: float) -> ASHAScheduler:
    """Return an ASHA scheduler over the epochs of the proxy protocol."""
    return ASHAScheduler(
        time_attr="epoch",
        max_t=task.job.protocol.epochs,
        grace_period=min(grace_epochs, task.job.protocol.epochs),
        reduction_factor=reduction,
    )
