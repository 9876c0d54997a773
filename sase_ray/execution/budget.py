"""The budget of a search, in training samples, kept through Tune's own hooks."""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune.search import Searcher

from trainables.persistence.resumable import FIRST_TRIAL, OUT_OF_MEMORY, SHARE, TRIAL

LARGER_SHARE = 2
"""Factor on the GPU share of a trial that ran out of memory."""


class Budget:
    """A ledger of samples: those that trials have spent, and those set aside for the next epochs.

    A trial begins or continues only if what it needs next can be set aside; so a search never
    overdraws its budget, however many trials run at once.

    Args:
        total: Samples that all trials together may see.
        samples_per_epoch: Cost of one more epoch of a trial.
        first_epochs: Epochs that a trial needs to begin.
        max_trials: Number of trials that may begin; None for no limit.
    """

    def __init__(
        self,
        total: int,
        samples_per_epoch: int,
        first_epochs: int,
        max_trials: int | None = None,
    ) -> None:
        self.total = total
        self.samples_per_epoch = samples_per_epoch
        self.first_epochs = first_epochs
        self.max_trials = max_trials
        self.spent: dict[str, int] = {}
        self._aside: dict[str, int] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Budget:
        # Tune copies searchers; searcher and stopper must keep one ledger.
        return self

    @property
    def used(self) -> int:
        """Samples seen so far by all trials."""
        return sum(self.spent.values())

    @property
    def busy(self) -> bool:
        """Whether a trial still holds samples set aside, which it may give back."""
        return any(self._aside.values())

    def begin(self, trial_id: str) -> bool:
        """Set aside what a new trial needs; return whether there was room."""
        if self.max_trials is not None and len(self.spent) >= self.max_trials:
            return False
        if not self._set_aside(trial_id, self.first_epochs * self.samples_per_epoch):
            return False
        self.spent[trial_id] = 0
        return True

    def go_on(self, trial_id: str, samples: int) -> bool:
        """Book what a trial has seen; return whether there is room for its next epoch."""
        grown = samples - self.spent.get(trial_id, 0)
        self.spent[trial_id] = samples
        left = max(0, self._aside.get(trial_id, 0) - grown)
        self._aside[trial_id] = left
        return self._set_aside(trial_id, max(left, self.samples_per_epoch))

    def end(self, trial_id: str, samples: int | None = None) -> None:
        """Book a trial's end and give back what it did not use."""
        if samples is not None:
            self.spent[trial_id] = samples
        self._aside.pop(trial_id, None)

    def fail(self, trial_id: str) -> None:
        """Book a trial's failure.

        The epoch it failed in counts, so that a search of failing trials does not run forever.
        """
        lost = min(self.samples_per_epoch, self._aside.get(trial_id, 0))
        self.end(trial_id, self.spent.get(trial_id, 0) + lost)

    def cancel(self, trial_id: str) -> None:
        """Forget a trial that did not begin after all."""
        self.end(trial_id)
        self.spent.pop(trial_id, None)

    def _set_aside(self, trial_id: str, samples: int) -> bool:
        others = sum(aside for trial, aside in self._aside.items() if trial != trial_id)
        if self.used + others + samples > self.total:
            return False
        self._aside[trial_id] = samples
        return True


class BudgetStopper(tune.Stopper):
    """Stopper of trials whose next epoch the budget cannot pay."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return whether the trial must stop."""
        if result.get(tune.result.DONE):
            self.budget.end(trial_id, result["samples"])
            return False
        return not self.budget.go_on(trial_id, result["samples"])

    def stop_all(self) -> bool:
        """Return False: the searcher ends the search when nothing can begin."""
        return False


class BudgetedSearcher(Searcher):
    """A searcher that suggests only what the budget can pay, and is then finished.

    It numbers the trials: a trial's config holds its number under `TRIAL`.

    Args:
        inner: Searcher that suggests the configs.
        budget: Ledger, shared with the stopper.
    """

    def __init__(self, inner: Searcher, budget: Budget) -> None:
        super().__init__(metric=inner.metric, mode=inner.mode)
        self.inner = inner
        self.budget = budget
        self.begun = 0
        # Trials that ran out of memory, and begin again with a larger share of a GPU.
        self._again: list[tuple[str, dict[str, Any]]] = []
        self._configs: dict[str, dict[str, Any]] = {}
        self._first_ids: dict[str, str] = {}

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Hand metric, mode and space to the inner searcher."""
        super().set_search_properties(metric, mode, config, **spec)
        return self.inner.set_search_properties(metric, mode, config, **spec)

    def suggest(  # type: ignore[override]  # Tune's own annotation forgets FINISHED
        self, trial_id: str
    ) -> dict[str, Any] | str | None:
        """Return a config; None while running trials may give samples back; else FINISHED."""
        if not self.budget.begin(trial_id):
            return None if self.budget.busy else Searcher.FINISHED
        if self._again:
            self._first_ids[trial_id], larger = self._again.pop(0)
            return larger
        config = self.inner.suggest(trial_id)
        if config is None or config == Searcher.FINISHED:
            self.budget.cancel(trial_id)
            return config
        number = f"{self.begun:0{len(FIRST_TRIAL)}d}"
        self.begun += 1
        self._configs[trial_id] = {**config, TRIAL: number}
        return self._configs[trial_id]

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass an intermediate result on."""
        self.inner.on_trial_result(self._first_ids.get(trial_id, trial_id), result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Pass a trial's end on, and give back what it did not use."""
        config = self._configs.pop(trial_id, None)
        if config is not None and result and OUT_OF_MEMORY in result:
            self.budget.cancel(trial_id)
            self._again.append((trial_id, {**config, SHARE: LARGER_SHARE}))
            return
        if error:
            self.budget.fail(trial_id)
        else:
            self.budget.end(trial_id)
        first = self._first_ids.pop(trial_id, trial_id)
        self.inner.on_trial_complete(first, result=result, error=error)

    def save(self, checkpoint_path: str) -> None:
        """Save the inner searcher."""
        self.inner.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Restore the inner searcher."""
        self.inner.restore(checkpoint_path)


class Once(Searcher):
    """Searcher that suggests one trial, for a search that is a single trial."""

    def __init__(self) -> None:
        super().__init__()
        self.done = False

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Accept anything."""
        return True

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
