"""Base class of strategies that train genotypes one by one."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from sase_ray.results.families import Family
from sase_ray.results.history import History
from sase_ray.strategies.black_box.encodings import to_param_space
from sase_ray.strategies.contract import Plan, SearchTask, Strategy, check_budget
from search_spaces.genotype import Ranking
from trainables.proxy.trainable import ProxyTrainable


class BlackBox(Strategy):
    """A strategy that trains genotypes one by one by the proxy protocol.

    A subclass defines a `searcher`, and a `scheduler` if it stops trials early.
    """

    family: ClassVar[Family] = "black-box"
    trains_genotypes: ClassVar[bool] = True
    takes_warm_start: ClassVar[bool] = True

    @abstractmethod
    def searcher(self, task: SearchTask) -> Searcher:
        """Return a new searcher, seeded by the task."""

    def scheduler(self, task: SearchTask) -> TrialScheduler | None:
        """Return a new scheduler; None trains every genotype to the end."""
        return None

    def first_epochs(self, task: SearchTask) -> int:
        """Return the minimum number of epochs of a trial: all if nothing stops it early."""
        return task.job.protocol.epochs

    def wants_host(self, task: SearchTask) -> bool:
        """Return whether candidates start inside a trained host, as the job states."""
        return task.job.starts_in_host

    def max_trials(self, task: SearchTask) -> int | None:
        """Return the number of trials after which the search has nothing left to try."""
        return None

    def check(self, task: SearchTask) -> None:
        """Reject a budget that is not enough for one trial and the warm host before it."""
        what = "one trial of the proxy protocol"
        if task.job.samples_of_host:
            what = f"training the warm host and {what}"
        if task.warm.samples:
            what = f"the search that it starts from, {what}"
        check_budget(task, task.samples_before_trials + task.job.samples_per_trial, what)

    def plan(self, task: SearchTask) -> Plan:
        """Run `ProxyTrainable` over the whole space."""
        # The host that all strategies share is counted once, outside their budgets.
        host = task.job.host if task.job.host_job is None else None
        return Plan(
            trainable=ProxyTrainable,
            samples_before=task.warm.samples + (host.samples if host else 0),
            seconds_before=task.warm.seconds + (host.seconds if host else 0.0),
            parameters={"job": task.job},
            param_space=to_param_space(task.job.space),
            searcher=self.searcher(task),
            scheduler=self.scheduler(task),
            samples_per_epoch=task.job.samples_per_epoch,
            first_epochs=self.first_epochs(task),
            max_trials=self.max_trials(task),
        )

    def conclude(self, history: History, task: SearchTask) -> Ranking:
        """Rank by the metric, trials that were trained longer before those stopped early."""
        return history.ranked_trials()
