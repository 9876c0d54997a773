"""Tune's callback that keeps the history of a search."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from sase_ray.execution.failures import reason_of
from sase_ray.execution.observer import Observer, notify
from sase_ray.execution.search_logic import LiveTrial
from sase_ray.results.history import History, Row
from sase_ray.results.search_id import SearchId
from search_spaces.space import SearchSpace
from trainables.persistence.resumable import NOTE, OUT_OF_MEMORY, REPORTED, TRIAL
from trainables.persistence.store import StorageError

_NO_STORAGE = [os.strerror(code) for code in (errno.ENOSPC, errno.EROFS, errno.EDQUOT)]


class Recorder(Callback):
    """Tune's callback that keeps the history, and notifies observers of trials and evaluations.

    A replay calls the same methods in Tune's place.

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

    def prepare(self, trials: Iterable[LiveTrial]) -> None:
        """Record the genotypes of trials that begin, in case they fail before they report."""
        for trial in trials:
            self._prepare(trial.config)

    def _prepare(self, config: Mapping[str, Any]) -> None:
        if config.keys() >= {variable.name for variable in self.space.variables}:
            genotype = self.space.from_config(dict(config))
            self.history.genotypes[config[TRIAL]] = str(genotype)

    def evaluated(self, trial: str, result: Row) -> None:
        """Record an evaluation."""
        notify(self.observers, "evaluated", self.search, self.history.add(trial, result))

    def ended(self, trial: str) -> None:
        """Notify the observers that a trial has ended well."""
        notify(self.observers, "trial_ended", self.search, trial, None)

    def failed(self, trial: str, reason: str) -> None:
        """Record why a trial failed."""
        self.history.failures[trial] = reason
        notify(self.observers, "trial_ended", self.search, trial, reason)

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Record the genotype of the trial, and notify the observers."""
        self._prepare(trial.config)
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
        # A process that takes the place of this one continues after this result.
        trial.config[REPORTED] = result["epoch"]
        self.evaluated(trial.config[TRIAL], result)

    def _note(self, text: str) -> None:
        notify(self.observers, "noted", f"search {self.search}: {text}")

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Notify the observers of a trial's end, and remove what Tune kept of it."""
        if trial.storage is not None:
            with suppress(OSError):  # what is left is removed with the search
                trial.storage.storage_filesystem.delete_dir(trial.storage.trial_fs_path)
        # Tune keeps the course of every number that a trial reported.
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()
        if OUT_OF_MEMORY not in trial.last_result:
            self.ended(trial.config[TRIAL])

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Record why a trial failed.

        Raises:
            StorageError: It failed because the storage did, which is not the genotype's fault.
        """
        # `trial.get_error` reads Tune's storage, which may not hold the driver's own file yet.
        text = Path(trial.error_file).read_text("utf-8", "replace") if trial.error_file else ""
        reason = reason_of(text)
        # Tune also writes to the storage, in its own way.
        if any(sign in text for sign in (StorageError.__name__, *_NO_STORAGE)):
            raise StorageError(reason)
        self.failed(trial.config[TRIAL], reason)
