"""What a search strategy is: the contract that every file of this folder fulfils."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from sase_ray.results.history import History
from sase_ray.strategies.black_box.encodings import to_param_space
from search_spaces.errors import UserError
from search_spaces.genotype import Genotype
from trainables.one_shot.algorithm import OneShotAlgorithm, Ranking
from trainables.one_shot.trainable import SupernetTrainable
from trainables.proxy.trainable import ProxyTrainable
from trainables.search_job import SearchJob, WarmHost
from trainables.training.protocol import TrainingProtocol

logger = logging.getLogger(__name__)

Family = Literal["black-box", "one-shot", "training-free"]


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
        metric: what a search optimises: `val_loss` or `val_accuracy`.
        warm: genotypes to try first, where the strategy can use them; their cost is part of
            the budget.
    """

    job: SearchJob
    budget: int
    metric: str = "val_loss"
    warm: WarmStart = WarmStart()

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether the metric is better small or large."""
        return "min" if self.metric.endswith("loss") else "max"

    @property
    def warm_start(self) -> tuple[Genotype, ...]:
        """Genotypes to try first, best first."""
        return self.warm.genotypes

    @property
    def samples_before_trials(self) -> int:
        """Training samples spent before the first trial: on the warm start, and on a warm host."""
        return self.warm.samples + self.job.samples_of_host

    def with_host(self, host: WarmHost) -> SearchTask:
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


class Strategy(BaseModel, ABC):
    """A search strategy. Its fields are its options. Its life, in order:

    1. `check` refuses a task that it cannot begin, before anything is started.
    2. `plan` says what Ray Tune runs. Tune then runs it until the budget is used.
    3. `conclude` reads the history of all trials and ends with a ranking of genotypes; the first
       one is the strategy's answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: ClassVar[str]
    family: ClassVar[Family]
    source: ClassVar[str]
    summary: ClassVar[str]

    _label: str = PrivateAttr("")

    @property
    def label(self) -> str:
        """What a run calls it: its name, or X+Y where it starts from what Y has found."""
        return self._label or self.name

    @property
    def starts_from(self) -> str | None:
        """The strategy whose findings it starts from."""
        return self.label.partition("+")[2] or None

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
        return False

    @abstractmethod
    def plan(self, task: SearchTask) -> Plan:
        """Say what Ray Tune is to run."""

    @abstractmethod
    def conclude(self, history: History, task: SearchTask) -> Ranking:
        """Rank the genotypes by what the search has seen, best first."""


class BlackBox(Strategy):
    """A strategy that trains genotypes one by one by the proxy protocol.

    A subclass gives a `searcher`, and a `scheduler` if it stops trials early.
    """

    family: ClassVar[Family] = "black-box"
    takes_warm_start: ClassVar[bool] = True

    @abstractmethod
    def searcher(self, task: SearchTask) -> Searcher:
        """Return a fresh searcher, seeded by the task."""

    def scheduler(self, task: SearchTask) -> TrialScheduler | None:
        """Return a fresh scheduler; None trains every genotype to the end."""
        return None

    def first_epochs(self, task: SearchTask) -> int:
        """Return how long a trial trains at least: to the end, where nothing stops it early."""
        return task.job.protocol.epochs

    def score(self, task: SearchTask) -> str:
        """Genotypes are ranked by the metric of their trials."""
        return f"{task.metric} ({'lower' if task.mode == 'min' else 'higher'} is better)"

    def wants_host(self, task: SearchTask) -> bool:
        """Candidates start inside a warm host where the protocol says so."""
        return task.job.protocol.warm_host is not None

    def max_trials(self, task: SearchTask) -> int | None:
        """Return after how many trials the search has nothing left to try."""
        return None

    def check(self, task: SearchTask) -> None:
        """Refuse a budget that does not pay for one trial, and for the warm host before it."""
        what = "one trial of the proxy protocol"
        if task.job.protocol.warm_host:
            what = f"training the warm host and {what}"
        if task.warm.samples:
            what = f"the search that it starts from, {what}"
        _check_budget(task, task.samples_before_trials + task.job.samples_per_trial, what)

    def plan(self, task: SearchTask) -> Plan:
        """Run `ProxyTrainable` over the whole space."""
        host = task.job.host
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


class OneShot(Strategy):
    """A strategy that searches inside one supernet: one trial is the whole search.

    A subclass gives an `algorithm`. The weights of the supernet are trained as in DARTS, unless it
    says otherwise.
    """

    batch_size: int = Field(default=64, ge=2)
    lr: float = Field(default=0.025, gt=0, description="of the weights, SGD, cosine to lr_min")
    lr_min: float = Field(default=0.001, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=3e-4, ge=0)
    clip: float = Field(default=5.0, gt=0, description="maximal gradient norm of the weights")

    family: ClassVar[Family] = "one-shot"

    @model_validator(mode="after")
    def _rate_falls(self) -> OneShot:
        if self.lr_min > self.lr:
            raise ValueError(f"lr_min {self.lr_min:g} is above lr {self.lr:g}")
        return self

    def weight_protocol(self, task: SearchTask) -> TrainingProtocol:
        """Return how the supernet's weights are trained; `epochs` follows from the budget."""
        shared = task.job.protocol.model_dump(
            include={"augment", "amp", "channels_last", "deterministic", "cuda_graphs"}
        )
        own = self.model_dump(
            include={"batch_size", "lr", "lr_min", "momentum", "weight_decay", "clip"}
        )
        return TrainingProtocol(**shared, **own)

    def score(self, task: SearchTask) -> str:
        """Genotypes are ranked by what the architecture parameters make of them."""
        return "log-probability (higher is better)"

    @abstractmethod
    def algorithm(self, task: SearchTask) -> OneShotAlgorithm:
        """Return the algorithm, not yet started."""

    def check(self, task: SearchTask) -> None:
        """Refuse a budget that does not pay for one step, and a host that the blocks do not fit."""
        algorithm, job = self.algorithm(task), task.job
        try:
            with torch.device("meta"):
                algorithm.build_supernet(job.network, job.space, job.seed)
        except UserError:
            raise
        except Exception:
            # A user's operation that fails is its own search's failure, and the others go on.
            logger.debug("the supernet cannot be built", exc_info=True)
        images = len(job.data.train) // (2 if algorithm.halves_data else 1)
        batch_size = min(algorithm.protocol.batch_size, images)
        one_step = algorithm.step_cost.samples(batch_size, 1, 1)
        needed = math.ceil(one_step / (1 - algorithm.reserve))
        _check_budget(task, needed, "one step of the search")

    def plan(self, task: SearchTask) -> Plan:
        """Run `SupernetTrainable` once, with the whole budget."""
        return Plan(
            trainable=SupernetTrainable,
            parameters={
                "job": task.job,
                "algorithm": self.algorithm(task),
                "budget": task.budget,
            },
            samples_per_epoch=0,  # the trainable itself ends within its budget
            first_epochs=0,
            max_trials=1,
        )

    def conclude(self, history: History, task: SearchTask) -> Ranking:
        """Return the ranking that the search ended with."""
        return history.last_ranking()


def _check_budget(task: SearchTask, needed: int, what: str) -> None:
    if task.budget < needed:
        raise UserError(f"budget {task.budget:,} is too small: {what} sees {needed:,} samples")
