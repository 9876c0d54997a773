"""Tune's callback that keeps the history of a search."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from sase_ray.execution.failures import reason_of
from sase_ray.execution.observer import Observer, notify
from sase_ray.results.history import History, Row
from sase_ray.results.search_id import SearchId
from search_spaces.space import SearchSpace
from trainables.persistence.resumable import NOTE, OUT_OF_MEMORY, TRIAL
from trainables.persistence.store import StorageError

_NO_STORAGE = [os.strerror(code) for code in (errno.ENOSPC, errno.EROFS, errno.EDQUOT)]


class Recorder(Callback):
    """Tune's callback that keeps the history, and notifies observers of trials and evaluations.

    Args:
        history: History to which evaluations are added.
        space: Search space, which reads the genotype out of a trial's config.
        search: Name of the search.
        observers: Observers of the search.
    """

    def __init__(
        self,
        history: History,
        space: SearchSpace,
        search: SearchId,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.history = history
        self.space = space
        self.search = search
        self.observers = observers

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the observers, which live in this process: Tune saves its callbacks."""
        return {**self.__dict__, "observers": ()}

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Record the genotype of the trial, in case it fails before it reports."""
        if trial.config.keys() >= {variable.name for variable in self.space.variables}:
            genotype = self.space.from_config(trial.config)
            self.history.genotypes[trial.config[TRIAL]] = str(genotype)
        notify(self.observers, "trial_began", self.search, trial.config[TRIAL])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: Row, **info: Any
    ) -> None:
        """Record an evaluation, and pass on the trial's notes."""
        if note := result.get(NOTE):
            self._note(note)
        if share := result.get(OUT_OF_MEMORY):
            which = f"trial {trial.config[TRIAL]}"
            self._note(f"{which} ran out of memory on {share:g} GPU: again, with more")
            return
        row = self.history.add(trial.config[TRIAL], result)
        notify(self.observers, "evaluated", self.search, row)

    def _note(self, text: str) -> None:
        notify(self.observers, "noted", f"search {self.search}: {text}")

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Notify the observers that a trial has ended well, and remove what Tune kept of it."""
        if trial.storage is not None:
            with suppress(OSError):  # what is left is removed with the search
                trial.storage.storage_filesystem.delete_dir(trial.storage.trial_fs_path)
        # Tune keeps the course of every number that a trial reported.
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()
        if OUT_OF_MEMORY in trial.last_result:
            return
        notify(self.observers, "trial_ended", self.search, trial.config[TRIAL], None)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Record why a trial failed.

        Raises:
            StorageError: It failed because the storage did, which is not the genotype's fault.
        """
        # `trial.get_error` reads Tune's storage, which may not hold the driver's own file yet.
        text = Path(trial.error_file).read_text() if trial.error_file else ""
        reason = reason_of(text)
        # Tune also writes to the storage, in its own way.
        if any(told in text for told in (StorageError.__name__, *_NO_STORAGE)):
            raise StorageError(reason)
        self.history.failures[trial.config[TRIAL]] = reason
        notify(self.observers, "trial_ended", self.search, trial.config[TRIAL], reason)
