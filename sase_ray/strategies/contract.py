"""What a search strategy is: the contract that every file of this folder fulfils."""

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
    """What another search has found.

    Args:
        genotypes: best first.
        samples: training samples that it took.
        seconds: device-seconds of the same.
    """

    genotypes: tuple[Genotype, ...] = ()
    samples: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class SearchTask:
    """One search of a comparison.

    Args:
        job: networks, data, proxy protocol and seed.
        budget: training samples the search may see, each forward-backward pass counted.
        metric: what a search optimises, a declared metric such as `val_loss`.
        warm: genotypes to try first, where the strategy can use them; their cost is part of
            the budget.
    """

    job: SearchJob
    budget: int
    metric: str = "val_loss"
    warm: WarmStart = WarmStart()

    @property
    def mode(self) -> Mode:
        """Whether the metric is better small or large."""
        return find_metric(self.metric).direction

    @property
    def warm_start(self) -> tuple[Genotype, ...]:
        """Genotypes to try first, best first."""
        return self.warm.genotypes

    @property
    def samples_before_trials(self) -> int:
        """Training samples spent before the first trial: on the warm start, and on a warm host."""
        return self.warm.samples + self.job.samples_of_host

    def with_host(self, host: TrainedHost) -> SearchTask:
        """Return the task whose candidates start inside this host."""
        return replace(self, job=replace(self.job, host=host))


@dataclass(frozen=True)
class Plan:
    """What Ray Tune is to run for one search.

    Args:
        trainable: class of a trial.
        parameters: handed to its `setup` through the object store.
        param_space: the searched variables.
        searcher: suggests configs; None for a single trial.
        scheduler: stops trials early; None lets each run to its end.
        samples_per_epoch: what a trial's iteration costs at most.
        first_epochs: a trial is begun only while the budget has room for this many.
        max_trials: begin no more than these; None leaves it to the budget.
        samples_before: what was spent before the first trial, on a warm host.
        seconds_before: device-seconds of the same.
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

    1. `check` refuses a task that it cannot begin, before anything is started.
    2. `plan` says what Ray Tune runs. Tune then runs it until the budget is used.
    3. `conclude` reads the history of all trials and ends with a ranking of genotypes; the first
       one is the strategy's answer.
    """

    catalogue: ClassVar[Catalogue[Any]] = STRATEGIES
    family: ClassVar[Family]
    source: ClassVar[str]
    trains_genotypes: ClassVar[bool] = False
    """Whether a trial trains one genotype, so that metrics of trials compare genotypes."""
    trains_supernet: ClassVar[bool] = False
    """Whether its one trial trains a supernet, which takes a supernet's share of a GPU."""
    takes_warm_start: ClassVar[bool] = False
    """Whether it can begin with genotypes that another search found."""

    _starts_from: str | None = PrivateAttr(None)

    @property
    def label(self) -> str:
        """What a run calls it: its name, or X+Y where it starts from what Y has found."""
        return label_of(self.name, self._starts_from)

    @property
    def starts_from(self) -> str | None:
        """The strategy whose findings it starts from."""
        return self._starts_from

    def search_id(self, seed: int) -> SearchId:
        """Return the name of its search with a seed."""
        return SearchId(self.name, seed, self._starts_from)

    @abstractmethod
    def check(self, task: SearchTask) -> None:
        """Check that the budget is enough to begin.

        Raises:
            UserError: it is not; the message says how much is needed.
        """

    @abstractmethod
    def score(self, task: SearchTask) -> str:
        """Name the scores of the ranking that the search ends with, and its direction."""

    def wants_host(self, task: SearchTask) -> bool:
        """Return whether the task's job needs a trained host before `plan`."""
        return task.job.host_job is not None

    @abstractmethod
    def plan(self, task: SearchTask) -> Plan:
        """Say what Ray Tune is to run."""

    @abstractmethod
    def conclude(self, history: History, task: SearchTask) -> Ranking:
        """Rank the genotypes by what the search has seen, best first."""


def check_budget(task: SearchTask, needed: int, what: str) -> None:
    """Check that a budget suffices.

    Raises:
        UserError: it does not.
    """
    if task.budget < needed:
        raise UserError(f"budget {task.budget:,} is too small: {what} sees {needed:,} samples")
