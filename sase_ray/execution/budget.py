"""The budget of a search, in training samples."""

from __future__ import annotations


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

    @property
    def used(self) -> int:
        """Samples seen so far by all trials."""
        return sum(self.spent.values())

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
