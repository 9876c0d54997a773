"""The decisions of a search: which trial begins next, and which one ends.

Ray Tune, the simulation on a table and the replay of an interrupted search all ask the same
object, so they cannot differ in anything but the results that they bring.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ray.tune.result import DONE
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sase_ray.execution.budget import Budget
from sase_ray.strategies import Plan
from trainables.metrics import Mode
from trainables.persistence.resumable import FIRST_TRIAL, TRIAL

FIRST_FAILURES = 3
"""Number of trials after which a search begins no more, if all have failed so far."""


@dataclass
class LiveTrial:
    """A trial that has begun and not ended: the part of Tune's trials that schedulers read.

    Attributes:
        trial_id: Number of the trial.
        config: Config of the trial, which holds its number under `TRIAL`.
        last_result: Last result that has reached the search; empty at first.
    """

    trial_id: str
    config: dict[str, Any]
    status: str = "RUNNING"
    last_result: dict[str, Any] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """Number of epochs that have reached the search."""
        return int(self.last_result.get("epoch", 0))


class SearchLogic:
    """The searcher, the scheduler and the budget of one search.

    It numbers the trials in the order in which they begin, and knows only these numbers.
    What it decides depends on the order of its calls and on the results, and on nothing else.

    Args:
        plan: Plan of the search; its searcher and its scheduler are used up.
        metric: Metric that the search optimises.
        mode: Direction of the metric.
        budget: Ledger of samples.

    Attributes:
        live: Trials that have begun and not ended, by number, in the order of their numbers.
    """

    def __init__(self, plan: Plan, metric: str, mode: Mode, budget: Budget) -> None:
        self.searcher = plan.searcher or Once()
        self.searcher.set_search_properties(metric, mode, dict(plan.param_space))
        self.scheduler = plan.scheduler or FIFOScheduler()
        self.scheduler.set_search_properties(metric, mode)
        self.metric, self.mode = metric, mode
        self.budget = budget
        self.begun = 0
        self.live: dict[str, LiveTrial] = {}
        self._exhausted = False
        self._failed_first = 0
        self._any_result = False
        self._controller: Any = SimpleNamespace()  # a scheduler that only stops reads the trial

    def begin(self) -> LiveTrial | None:
        """Begin a trial; None if the budget cannot pay it now, or nothing is left to try.

        Nothing is left either once the first `FIRST_FAILURES` trials have failed.
        """
        number = f"{self.begun:0{len(FIRST_TRIAL)}d}"
        if self._is_hopeless or self._exhausted or not self.budget.begin(number):
            return None
        config = self.searcher.suggest(number)
        if not isinstance(config, dict):
            self._exhausted = config == Searcher.FINISHED
            self.budget.cancel(number)
            return None
        self.begun += 1
        trial = LiveTrial(number, {**config, TRIAL: number})
        self.live[number] = trial
        self.scheduler.on_trial_add(self._controller, trial)  # type: ignore[arg-type]
        return trial

    @property
    def _is_hopeless(self) -> bool:
        """Whether the first trials have all failed: those that run may still show otherwise."""
        return self._failed_first >= FIRST_FAILURES and not self._any_result

    def fill(self, workers: int) -> Iterator[LiveTrial]:
        """Begin trials until as many are live as there are workers; yield each of them."""
        while len(self.live) < workers and (trial := self.begin()) is not None:
            yield trial

    def result(self, number: str, result: dict[str, Any]) -> bool:
        """Take a result of a live trial; return whether the trial ends with it.

        Raises:
            ValueError: The scheduler wants to pause the trial.
        """
        trial: Any = self.live[number]
        self._any_result = True
        trial.last_result = result
        ends = self._ends(trial, result)
        if ends:
            self.budget.end(number)
            self.scheduler.on_trial_complete(self._controller, trial, result)
            self.searcher.on_trial_complete(number, result)
            del self.live[number]
        else:
            self.searcher.on_trial_result(number, result)
        return ends

    def _ends(self, trial: Any, result: dict[str, Any]) -> bool:
        if result[DONE]:
            self.budget.end(trial.trial_id, result["samples"])
            return True
        if not self.budget.go_on(trial.trial_id, result["samples"]):
            return True
        action = self.scheduler.on_trial_result(self._controller, trial, result)
        if action == TrialScheduler.PAUSE:
            raise ValueError(f"{type(self.scheduler).__name__} pauses trials: it may only end them")
        return action == TrialScheduler.STOP

    def fail(self, number: str) -> None:
        """Take note that a live trial has failed."""
        trial: Any = self.live.pop(number)
        self._failed_first += 1
        self.budget.fail(number)
        self.scheduler.on_trial_error(self._controller, trial)
        self.searcher.on_trial_complete(number, error=True)


class Once(Searcher):
    """Searcher that suggests one trial, for a search that is a single trial."""

    def __init__(self) -> None:
        super().__init__()
        self.done = False

    def suggest(  # type: ignore[override]  # Tune's own annotation forgets FINISHED
        self, trial_id: str
    ) -> dict[str, Any] | str:
        """Return an empty config once."""
        if self.done:
            return Searcher.FINISHED
        self.done = True
        return {}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Ignore the result."""
