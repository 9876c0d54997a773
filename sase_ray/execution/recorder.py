"""Tune's callback that keeps the history of a search."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from sase_ray.execution.failures import reason_of
from sase_ray.results.history import History, Row
from search_spaces.space import SearchSpace
from trainables.persistence.resumable import NOTE, OUT_OF_MEMORY, TRIAL
from trainables.persistence.store import StorageError

_NO_STORAGE = [os.strerror(code) for code in (errno.ENOSPC, errno.EROFS, errno.EDQUOT)]


class Recorder(Callback):
    """Tune's callback that keeps the history, and tells a listener of every evaluation.

    Args:
        history: what to keep it in.
        space: reads the genotype out of a trial's config.
        listener: told of every row, and of the end of every trial.
    """

    def __init__(self, history: History, space: SearchSpace, listener: Listener) -> None:
        self.history = history
        self.space = space
        self.listener = listener

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the listener, which lives in this process: Tune saves its callbacks."""
        return {**self.__dict__, "listener": None}

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Keep which genotype the trial is for, should it fail before it reports."""
        if trial.config.keys() >= {variable.name for variable in self.space.variables}:
            genotype = self.space.from_config(trial.config)
            self.history.genotypes[trial.config[TRIAL]] = str(genotype)
        self.listener.trial_began(trial.config[TRIAL])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: Row, **info: Any
    ) -> None:
        """Record an evaluation, and pass on what else the trial says."""
        if note := result.get(NOTE):
            self.listener.noted(note)
        if share := result.get(OUT_OF_MEMORY):
            which = f"trial {trial.config[TRIAL]}"
            self.listener.noted(f"{which} ran out of memory on {share:g} GPU: again, with more")
            return
        self.listener.evaluated(self.history.add(trial.config[TRIAL], result))

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Tell that a trial has ended well, and remove what Tune kept of it."""
        if trial.storage is not None:
            with suppress(OSError):  # what is left is removed with the search
                trial.storage.storage_filesystem.delete_dir(trial.storage.trial_fs_path)
        # Of every trial, Tune keeps the course of every number that it reported.
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()
        if OUT_OF_MEMORY in trial.last_result:
            return
        self.listener.trial_ended(trial.config[TRIAL], None)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Record why a trial failed.

        Raises:
            StorageError: it failed because the storage did, which is no fault of its genotype.
        """
        # `trial.get_error` reads Tune's storage, where the driver's own file may not be yet.
        text = Path(trial.error_file).read_text() if trial.error_file else ""
        reason = reason_of(text)
        # Tune writes to the storage, too, in its own manner.
        if any(told in text for told in (StorageError.__name__, *_NO_STORAGE)):
            raise StorageError(reason)
        self.history.failures[trial.config[TRIAL]] = reason
        self.listener.trial_ended(trial.config[TRIAL], reason)


class Listener:
    """What is told of a search as it goes; this one does not listen."""

    def trial_began(self, trial: str) -> None:
        """Hear of a trial's beginning; it may begin again."""

    def evaluated(self, row: Row) -> None:
        """Hear of an evaluation."""

    def trial_ended(self, trial: str, reason: str | None) -> None:
        """Hear of a trial's end, and the reason if it failed."""

    def noted(self, text: str) -> None:
        """Hear of something that somebody should know, in a sentence."""
