"""A trial that resumes where it was, whatever died: its process, its node, or the whole search."""

from __future__ import annotations

import json
import os
import signal
import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune

from trainables.hardware.device import gpu_share
from trainables.metrics import undeclared
from trainables.persistence.checkpoint import Checkpoints, load_state, save_state
from trainables.persistence.store import Store

TRIAL = "trial"
"""Key of a trial's config: its number in the order in which the search started its trials."""

FIRST_TRIAL = "00000"

REPORTED = "reported"
"""Key of a trial's config: number of its epochs that the search has; the next one is reported."""

SHARE_FACTOR = "share"
"""Key of a trial's config: factor by which its share of a GPU exceeds the others'; default 1."""

OUT_OF_MEMORY = "out_of_memory"
"""Key of a result without scores: the trial needs a larger share of the GPU."""

NOTE = "note"
"""Key of a result: a sentence that the user should read."""

Result = dict[str, Any]

_POINTER = "trial.json"
_EXCEEDED = "exceeded"


class TrialFailedError(Exception):
    """Failure of a trial that cannot continue; the message is the reason to record."""


@dataclass(frozen=True)
class Kept:
    """Place of the checkpoints of a search's trials, and their time limit.

    Attributes:
        store: Store of the trials' checkpoints; None leaves checkpoints to Tune.
        seconds: Time that one trial may train; None is unlimited.
    """

    store: Store | None = None
    seconds: float | None = None


class ResumableTrainable(tune.Trainable):
    """A Tune trainable whose iteration is an epoch, and that does not repeat epochs needlessly.

    A subclass implements `prepare`, `build`, `train_epoch`, `state` and `load`. A trial continues
    from its last checkpoint, which also holds its results: an epoch that was trained, but had not
    reached the search when the trial was interrupted, is reported from there. Without a store, the
    state is in Tune's own checkpoints.

    Args:
        config: Config of the trial; `TRIAL` is its number, `REPORTED` where it continues.
        kept: Store of checkpoints, and time limit.
        parts: Arguments of `prepare`.
    """

    def setup(self, config: dict[str, Any], kept: Kept | None = None, **parts: Any) -> None:
        """Prepare the process, and accept the first trial."""
        self.kept = kept or Kept()
        self.prepare(**parts)
        self._take(config)

    @abstractmethod
    def prepare(self, *args: Any, **parts: Any) -> None:
        """Set up the parts that all trials of this process share."""

    @abstractmethod
    def build(self, config: dict[str, Any]) -> None:
        """Build the network of a config, at epoch 0."""

    @abstractmethod
    def train_epoch(self) -> Result:
        """Train one epoch; return the result for Tune, including `tune.result.DONE`."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return the tensors and plain values that the rest of the training depends on."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Restore a state that `state` returned, after `build`."""

    def lost(self) -> dict[str, float]:
        """Return the metrics of a trial that ends without any: the worst ones."""
        return {}

    def identity(self, config: dict[str, Any]) -> str:
        """Return a name of what is trained; a checkpoint is used only for the same name."""
        return ""

    def _take(self, config: dict[str, Any]) -> None:
        self._trial_config = config
        self.trial_number = str(config.get(TRIAL, FIRST_TRIAL))
        self._identity = self.identity(config)
        self.reported = int(config.get(REPORTED, 0))
        self.results: list[Result] = []
        self._is_built = False
        self._notes: list[str] = []

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Accept another trial in the same process: Tune reuses the actor."""
        self._take(new_config)
        return True

    def step(self) -> Result:
        """Report the next epoch: trained now, or before an interruption."""
        try:
            result = self._trained(self.reported)
        except torch.OutOfMemoryError:
            return self._out_of_memory()
        self.reported += 1
        notes, self._notes = "; ".join(self._notes), []
        # Tune would count the epochs of this process.
        result = {**result, tune.result.TRAINING_ITERATION: self.reported}
        return {**result, NOTE: notes} if notes else result

    def _out_of_memory(self) -> Result:
        share = gpu_share()
        if SHARE_FACTOR in self._trial_config or not 0 < share < 1:
            raise TrialFailedError(f"out of memory on {share:g} GPU") from None
        self._take(self._trial_config)  # releases the network
        # Tune requires a metric; without an epoch, no scheduler counts it.
        return {**self.lost(), OUT_OF_MEMORY: share, "samples": 0, tune.result.DONE: True}

    def _trained(self, index: int) -> Result:
        """Train up to an epoch, counted from 0, and return its result."""
        self.go_on()
        while len(self.results) <= index:
            if self._store is not None and (why := self._store.read(_EXCEEDED)) is not None:
                raise TrialFailedError(why.decode())
            with self._time_limit():
                result = self.train_epoch()
            if lost := undeclared(result):
                raise ValueError(
                    f"{lost[0]!r} is reported and declared nowhere: "
                    f"trainables.metrics.declare(Metric({lost[0]!r}, ...))"
                )
            self.results.append(result)
            if self._store is not None:
                Checkpoints(self._store).save(self._state(), len(self.results))
        return self.results[index]

    def go_on(self) -> None:
        """Build the network in its last state; called automatically at the first epoch to train."""
        if self._is_built:
            return
        kept = Checkpoints(self._store, self._notes.append).latest() if self._store else None
        self.build(self._trial_config)
        self._is_built = True
        if kept is None or self._store is None:
            return
        if kept["identity"] == self._identity:
            self._load(kept)
        else:
            self._store.remove()

    def _state(self) -> dict[str, Any]:
        return {
            "identity": self._identity,
            "results": self.results,
            "state": self.state(),
        }

    def _load(self, kept: dict[str, Any]) -> None:
        self.load(kept["state"])
        self.results = list(kept["results"])

    @property
    def _store(self) -> Store | None:
        return self.kept.store.at(self.trial_number) if self.kept.store else None

    @contextmanager
    def _time_limit(self) -> Iterator[None]:
        """Kill the process when the trial's time is over, as one that hangs may never return."""
        limit, store = self.kept.seconds, self._store
        if limit is None or store is None:
            yield
            return
        used = self.results[-1]["train_seconds"] if self.results else 0.0

        def expire() -> None:
            epoch = len(self.results) + 1
            why = f"time limit: more than {limit:g} s, in epoch {epoch}"
            store.write(_EXCEEDED, why.encode())
            os.kill(os.getpid(), signal.SIGKILL)

        timer = threading.Timer(max(0.0, limit - used), expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write how many epochs have been reported; without a store, also the state."""
        if self._store is None:
            save_state(self._state(), checkpoint_dir)
        pointer = {"trial": self.trial_number, "reported": self.reported}
        Path(checkpoint_dir, _POINTER).write_text(json.dumps(pointer), encoding="utf-8")

    def load_checkpoint(self, checkpoint: str | dict[str, Any] | None) -> None:
        """Resume from a checkpoint; on a CPU, bit for bit."""
        folder = Path(str(checkpoint))
        self.reported = json.loads((folder / _POINTER).read_text(encoding="utf-8"))["reported"]
        if self._store is None:
            self.build(self._trial_config)
            self._is_built = True
            self._load(load_state(folder))
