"""Contract of search strategies, which every strategy of this folder fulfils."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from pydantic import PrivateAttr
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from sase_ray.results.families import Family
from sase_ray.results.history import History
from sase_ray.results.search_id import SearchId, label_of
from sase_ray.strategies.registry import STRATEGIES
from search_spaces.catalogue import Catalogue
from search_spaces.configurable import Configurable
from search_spaces.errors import UserError
from search_spaces.genotype import Genotype, Ranking
from trainables.metrics import Mode, find_metric
from trainables.search_job import SearchJob
from trainables.training.frozen_host import TrainedHost


@dataclass(frozen=True)
class WarmStart:
    """Genotypes that another search found, and the cost of that search.

    Args:
        genotypes: Genotypes that it found, best first.
        samples: Number of training samples that it took.
        seconds: Device-seconds that it took.
    """

    genotypes: tuple[Genotype, ...] = ()
    samples: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class SearchTask:
    """One search of a comparison.

    Args:
        job: Networks, data, proxy protocol and seed.
        budget: Number of training samples that the search may see, each forward-backward pass
            counted.
        metric: Name of the metric that trainings are compared by, a declared one such as
            `val_loss`.
        warm: Genotypes to try first, if the strategy can use them; their cost is part of the
            budget.
    """

    job: SearchJob
    budget: int
    metric: str = "val_loss"
    warm: WarmStart = WarmStart()

    @property
    def mode(self) -> Mode:
        """Direction of the metric: whether a small or a large value is better."""
        return find_metric(self.metric).direction

    @property
    def warm_start(self) -> tuple[Genotype, ...]:
        """Genotypes to try first, best first."""
        return self.warm.genotypes

    @property
    def samples_before_trials(self) -> int:
        """Number of training samples spent before the first trial, on warm start and warm host."""
        return self.warm.samples + self.job.samples_of_host

    def with_host(self, host: TrainedHost) -> SearchTask:
        """Return the task whose candidates start inside this host."""
        return replace(self, job=replace(self.job, host=host))


@dataclass(frozen=True)
class Plan:
    """Plan of one search: what Ray Tune runs for it.

    Args:
        trainable: Class of a trial.
        parameters: Arguments of its `setup`, passed through the object store.
        param_space: Searched variables.
        searcher: Searcher, which suggests configs; None for a single trial.
        scheduler: Scheduler, which stops trials early by their results and pauses none; None lets
            each trial run to its end.
        samples_per_epoch: Maximum number of training samples of one iteration of a trial.
        first_epochs: Number of epochs that the remaining budget must cover for a trial to begin.
        max_trials: Maximum number of trials; None leaves it to the budget.
        samples_before: Number of training samples spent before the first trial, on a warm host.
        seconds_before: Device-seconds spent before the first trial, on a warm host.
    """

    trainable: type[tune.Trainable]
    parameters: Mapping[str, Any]
    samples_per_epoch: int
    first_epochs: int
    max_trials: int | None = None
    samples_before: int = 0
    seconds_before: float = 0.0
    param_space: Mapping[str, Any] = field(default_factory=dict)
    searcher: Searcher | None = None
    scheduler: TrialScheduler | None = None


class Strategy(Configurable, ABC):
    """A search strategy, whose fields are its options.

    Its life, in order:

    1. `check` rejects a task that it cannot begin, before anything is started.
    2. `plan` returns what Ray Tune runs. Tune then runs it until the budget is used.
    3. `conclude` reads the history of all trials and returns a ranking of genotypes; the first one
       is the strategy's answer.
    """

    catalogue: ClassVar[Catalogue[Any]] = STRATEGIES
    family: ClassVar[Family]
    source: ClassVar[str]
    trains_genotypes: ClassVar[bool] = False
    """Whether a trial trains one genotype, so that metrics of trials compare genotypes."""
    trains_supernet: ClassVar[bool] = False
    """Whether its one trial trains a supernet, which takes a supernet's share of a GPU."""
    tries_blindly: ClassVar[bool] = False
    """Whether it picks genotypes regardless of results and trains each to the end, so that its
    trials are a fair sample of the proxy's noise."""
    takes_warm_start: ClassVar[bool] = False
    """Whether it can begin with genotypes that another search found."""

    _starts_from: str | None = PrivateAttr(None)

    @property
    def label(self) -> str:
        """Name of the strategy in a run: its own, or X+Y if it starts from the answers of Y."""
        return label_of(self.name, self._starts_from)

    @property
    def starts_from(self) -> str | None:
        """Name of the strategy whose answers it starts from, if any."""
        return self._starts_from

    def search_id(self, seed: int) -> SearchId:
        """Return the identifier of the strategy's search with a seed."""
        return SearchId(self.name, seed, self._starts_from)

    @abstractmethod
    def check(self, task: SearchTask) -> None:
        """Check that the budget is enough to begin.

        Raises:
            UserError: It is not; the message states how much is needed.
        """

    def metric(self, task: SearchTask) -> str:
        """Return the name of the metric that its trials report and are compared by."""
        return task.metric

    def ranks_by(self, task: SearchTask) -> str:
        """Return the name of the declared metric by which the search ranks genotypes at its end."""
        return self.metric(task)

    def wants_host(self, task: SearchTask) -> bool:
        """Return whether the task's job needs a trained host before `plan`."""
        return task.job.host_job is not None

    def footprint(self, task: SearchTask) -> int:
        """Return the bytes of GPU memory that a step of its supernet takes; 0 without one."""
        return 0

    @abstractmethod
    def plan(self, task: SearchTask) -> Plan:
        """Return what Ray Tune runs for the task."""

    @abstractmethod
    def conclude(self, history: History, task: SearchTask) -> Ranking:
        """Rank the genotypes by the results of the search, best first."""


def check_budget(task: SearchTask, needed: int, what: str) -> None:
    """Check that a budget is enough for `needed` training samples.

    Raises:
        UserError: It is not.
    """
    if task.budget < needed:
        raise UserError(f"budget {task.budget:,} is too small: {what} sees {needed:,} samples")
