"""A trial that goes on where it was, whatever died: its process, its node, or the whole search."""

from __future__ import annotations

import json
import os
import signal
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from trainables.hardware.device import gpu_share
from trainables.metrics import undeclared
from trainables.persistence.checkpoint import Checkpoints, load_state, save_state
from trainables.persistence.store import Store

TRIAL = "trial"
"""Key of a trial's config: its number in the order in which the search began its trials."""

FIRST_TRIAL = "00000"

SHARE = "share"
"""Key of a trial's config: by what factor its share of a GPU is larger than the others'; else 1."""

OUT_OF_MEMORY = "out_of_memory"
"""Key of a result that is none: the trial wants a larger share of the GPU."""

NOTE = "note"
"""Key of a result: something that somebody should know, in a sentence."""

Result = dict[str, Any]

_POINTER = "trial.json"
_EXCEEDED = "exceeded"


class TrialFailedError(Exception):
    """A trial cannot go on; the message is the reason to record."""


@dataclass(frozen=True)
class Memory:
    """What a search remembers of its trials, and what it allows them.

    Attributes:
        store: where trials keep their checkpoints; None leaves them to Tune alone.
        results: trial to the results of its first epochs, which are not trained again.
        failures: trial to the reason it failed for, before.
        turns: a Ray actor that gives remembered results their order, see
            `sase_ray.execution.replay_order`; None if trials run one at a time.
        seconds: how long one trial may train; None is for ever.
    """

    store: Store | None = None
    results: Mapping[str, Sequence[Result]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    turns: Any = None
    seconds: float | None = None


class ResumableTrainable(tune.Trainable):
    """A Tune trainable whose iteration is an epoch, and that never trains an epoch twice in vain.

    A subclass implements `prepare`, `build`, `train_epoch`, `state` and `load`. Results that the
    search remembers are reported again without training, and nothing is built for them; then the
    training goes on from its last checkpoint. Tune's own checkpoints only say how many epochs have
    been reported; without a store they hold the state.

    Args:
        config: of the trial; `TRIAL` is its number.
        memory: of the search.
        parts: handed to `prepare`.
    """

    def setup(self, config: dict[str, Any], memory: Memory | None = None, **parts: Any) -> None:
        """Prepare the process, and take the first trial."""
        self.memory = memory or Memory()
        self.prepare(**parts)
        self._take(config)

    @abstractmethod
    def prepare(self, *args: Any, **parts: Any) -> None:
        """Set up what all trials of this process share."""

    @abstractmethod
    def build(self, config: dict[str, Any]) -> None:
        """Build what is trained for a config, at epoch 0."""

    @abstractmethod
    def train_epoch(self) -> Result:
        """Train one epoch; return what Tune is told, `tune.result.DONE` included."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return tensors and plain values that the rest of the training depends on."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Restore what `state` gave, after `build`."""

    def lost(self) -> dict[str, float]:
        """Return the metrics of a trial that comes to none: the worst."""
        return {}

    def identity(self, config: dict[str, Any]) -> str:
        """Return what is trained: what is remembered of a trial holds for nothing else."""
        return ""

    def _take(self, config: dict[str, Any]) -> None:
        self._trial_config = config
        self.trial_number = str(config.get(TRIAL, FIRST_TRIAL))
        self._identity = self.identity(config)
        self.reported = 0
        self.results: list[Result] = []
        self._is_built = False
        self._notes: list[str] = []

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial in the same process: Tune reuses the actor."""
        self._take(new_config)
        return True

    def step(self) -> Result:
        """Report the next epoch: remembered, or trained now."""
        remembered = self._remembered()
        result = remembered[self.reported] if self.reported < len(remembered) else None
        self._await_turn(result is not None)
        if result is None:
            if why := self._failure():
                raise TrialFailedError(why)
            try:
                result = self._trained(self.reported)
            except torch.OutOfMemoryError:
                return self._out_of_memory()
        self.reported += 1
        notes, self._notes = "; ".join(self._notes), []
        return {**result, NOTE: notes} if notes else dict(result)

    def _out_of_memory(self) -> Result:
        share = gpu_share()
        if SHARE in self._trial_config or not 0 < share < 1:
            raise TrialFailedError(f"out of memory on {share:g} GPU") from None
        self._take(self._trial_config)  # lets go of the network
        # Tune wants a metric; without an epoch, no scheduler takes it for one.
        return {**self.lost(), OUT_OF_MEMORY: share, "samples": 0, tune.result.DONE: True}

    def _remembered(self) -> Sequence[Result]:
        results = self.memory.results.get(self.trial_number, ())
        # Where trials run side by side a search may begin others than it did before.
        return results if results and self._identity in ("", results[0]["genotype"]) else ()

    def _await_turn(self, remembered: bool) -> None:
        if self.memory.turns is not None:
            turn = (self.trial_number, self.reported + 1) if remembered else None
            ray.get(self.memory.turns.wait.remote(turn))

    def _failure(self) -> str | None:
        """Return why this trial has failed before, if it has."""
        why = self.memory.failures.get(self.trial_number)
        if why is None and self._kept is not None:
            content = self._kept.read(_EXCEEDED)
            why = content.decode() if content is not None else None
        return why

    def _trained(self, index: int) -> Result:
        """Return the result of an epoch, counted from 0, by training up to it."""
        self.go_on()
        while len(self.results) <= index:
            with self._time_limit():
                result = self.train_epoch()
            if lost := undeclared(result):
                raise ValueError(
                    f"{lost[0]!r} is reported and declared nowhere: "
                    f"trainables.metrics.declare(Metric({lost[0]!r}, ...))"
                )
            self.results.append(result)
            if self._kept is not None:
                Checkpoints(self._kept).save(self._state(), len(self.results))
        return self.results[index]

    def go_on(self) -> None:
        """Build what is trained, as it was last; done by itself at the first epoch to train."""
        if self._is_built:
            return
        kept = Checkpoints(self._kept, self._notes.append).latest() if self._kept else None
        self.build(self._trial_config)
        self._is_built = True
        if kept is None or self._kept is None:
            return
        if kept["identity"] == self._identity:
            self._load(kept)
        else:
            self._kept.remove()

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
    def _kept(self) -> Store | None:
        return self.memory.store.at(self.trial_number) if self.memory.store else None

    @contextmanager
    def _time_limit(self) -> Iterator[None]:
        """Kill the process when the trial's time is over: what hangs may hang for good."""
        limit, store = self.memory.seconds, self._kept
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
        """Write how many epochs have been reported; without a store, the state as well."""
        if self._kept is None:
            save_state(self._state(), checkpoint_dir)
        pointer = {"trial": self.trial_number, "reported": self.reported}
        Path(checkpoint_dir, _POINTER).write_text(json.dumps(pointer), encoding="utf-8")

    def load_checkpoint(self, checkpoint: str | dict[str, Any] | None) -> None:
        """Go on from a checkpoint, on a CPU bit for bit."""
        folder = Path(str(checkpoint))
        self.reported = json.loads((folder / _POINTER).read_text(encoding="utf-8"))["reported"]
        if self._kept is None:
            self.build(self._trial_config)
            self._is_built = True
            self._load(load_state(folder))
