"""The journal of a run: all results, stored as they arrive, so that it can be resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from ray.tune.result import DONE, TRAINING_ITERATION

from sase_ray.execution.observer import Observer
from sase_ray.execution.replay import PastEvent
from sase_ray.results.history import History, SearchOutcome
from sase_ray.results.search_id import SearchId
from search_spaces.errors import UserError
from search_spaces.genotype import Genotype
from trainables.metrics import Mode, recorded
from trainables.one_shot.trainable import STOPPED_EARLY
from trainables.persistence.store import StorageError, Store

FLUSH_SECONDS = 2.0
"""Age from which events are on disk; younger ones are still in the trials' checkpoints."""

_Entry = dict[str, Any]


class Journal(Observer):
    """Everything that the searches of a run report, in files that are only added to.

    ``journal/<search>/<number>.jsonl`` holds one event per line; ``outcomes/<search>.json`` a
    search that has ended, after which its journal and its checkpoints are removed.

    Args:
        store: Store of the run.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._waiting: dict[SearchId, list[_Entry]] = {}
        self._ended: dict[SearchId, list[str]] = {}
        self._parts: dict[SearchId, int] = {}
        self._replayed: dict[SearchId, int] = {}
        self._recalled: set[SearchId] = set()
        self._flushed = time.monotonic()

    def trials(self, search: SearchId) -> Store:
        """Return the store of the checkpoints of a search's trials."""
        return self.store.at("trials", search.file_name)

    def evaluated(self, search: SearchId, row: Mapping[str, Any]) -> None:
        """Note an evaluation unless the journal held it when the search began."""
        self._note(search, {"trial": row["trial"], "result": recorded(row)})

    def trial_ended(self, search: SearchId, trial: str, reason: str | None) -> None:
        """Note the end of a trial, and the reason if it failed."""
        if reason is not None:
            self._note(search, {"trial": trial, "reason": reason})
        self._ended.setdefault(search, []).append(trial)

    def rewound(self, search: SearchId, events: int) -> None:
        """Note that of the events held so far only the first ones still belong to the search."""
        self._replayed[search] = 0
        self._note(search, {"rewound": events})

    def _note(self, search: SearchId, event: _Entry) -> None:
        if self._replayed.get(search):  # it is one of those that the search was given
            self._replayed[search] -= 1
        else:
            self._waiting.setdefault(search, []).append(event)

    def flush(self, *, now: bool = True) -> None:
        """Write the waiting events; without `now`, only if the last writing was a while ago.

        Raises:
            StorageError: They cannot be written.
        """
        if not now and time.monotonic() - self._flushed < FLUSH_SECONDS:
            return
        for search, events in self._waiting.items():
            folder = self.store.at("journal", search.file_name)
            if search not in self._parts:
                self._parts[search] = len(folder.names())
            lines = "".join(json.dumps(event) + "\n" for event in events)
            folder.write(f"{self._parts[search]:08d}.jsonl", lines.encode())
            self._parts[search] += 1
        self._waiting.clear()
        # Only now are the checkpoints of trials that have ended no longer needed.
        for search, trials in self._ended.items():
            for trial in trials:
                self.trials(search).remove(trial)
        self._ended.clear()
        self._flushed = time.monotonic()

    def past(self, search: SearchId) -> list[PastEvent]:
        """Read the past events of a search, which it will report once more as they are replayed.

        Raises:
            StorageError: A file of the journal is damaged.
        """
        past: list[PastEvent] = []
        epochs: dict[str, int] = {}
        folder = self.store.at("journal", search.file_name)
        for name in folder.names():
            content = folder.read(name) or b""
            try:
                for line in content.decode().splitlines():
                    _add_event(past, epochs, json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise StorageError(f"{folder.place}/{name} is damaged: {error!r}") from None
        self._replayed[search] = len(past)
        return past

    def search_ended(self, search: SearchId, outcome: SearchOutcome) -> None:
        """Store the outcome of a search in place of its journal and its checkpoints."""
        if search in self._recalled:
            return
        content = json.dumps(_to_plain(outcome)).encode()
        self.store.write(f"outcomes/{search.file_name}.json", content)
        self._waiting.pop(search, None)
        self._ended.pop(search, None)
        self.store.at("journal", search.file_name).remove()
        self.trials(search).remove()

    def outcome(self, search: SearchId) -> SearchOutcome | None:
        """Return the outcome of a search, or None if it has not ended.

        Raises:
            StorageError: The file is damaged.
        """
        name = f"outcomes/{search.file_name}.json"
        content = self.store.read(name)
        if content is None:
            return None
        try:
            outcome = _from_plain(json.loads(content))
        except (ValueError, KeyError, TypeError, UserError) as error:
            raise StorageError(f"{self.store.place}/{name} is damaged: {error!r}") from None
        self._recalled.add(search)
        return outcome

    def tick(self, last: bool) -> None:
        """Write the waiting events if the last writing was long ago or no more follow for now."""
        self.flush(now=last)


def _add_event(past: list[PastEvent], epochs: dict[str, int], entry: _Entry) -> None:
    if "rewound" in entry:
        del past[entry["rewound"] :]
        epochs.clear()
        epochs.update((event.trial, event.result["epoch"]) for event in past if event.result)
        return
    trial = str(entry["trial"])
    if "reason" in entry:
        past.append(PastEvent(trial, reason=entry["reason"]))
        return
    result = entry["result"]
    # Journals of older versions hold an epoch again that was reported twice: it changes nothing.
    if result["epoch"] > epochs.get(trial, 0):
        epochs[trial] = result["epoch"]
        done = result["diverged"] or result["finished"] or _stopped_early(result)
        past.append(PastEvent(trial, result | {DONE: done, TRAINING_ITERATION: result["epoch"]}))


def _stopped_early(result: _Entry) -> bool:
    return str(result.get("reason") or "").startswith(STOPPED_EARLY)


def _to_plain(outcome: SearchOutcome) -> dict[str, Any]:
    history = outcome.history
    return {
        "strategy": outcome.strategy,
        "seed": outcome.seed,
        "ranking": [[str(genotype), score] for genotype, score in outcome.ranking],
        "score": outcome.score,
        "metric": history.metric,
        "mode": history.mode,
        "samples_before": history.samples_before,
        "seconds_before": history.seconds_before,
        "evaluations": [{"trial": row["trial"]} | recorded(row) for row in history.evaluations],
        "genotypes": history.genotypes,
        "failures": history.failures,
    }


def _from_plain(content: Mapping[str, Any]) -> SearchOutcome:
    mode: Mode = content["mode"]
    history = History(content["metric"], mode, content["samples_before"], content["seconds_before"])
    for row in content["evaluations"]:
        history.add(row["trial"], row)
    history.genotypes.update(content["genotypes"])
    history.failures.update(content["failures"])
    return SearchOutcome(
        strategy=content["strategy"],
        seed=content["seed"],
        ranking=[(Genotype.parse(text), score) for text, score in content["ranking"]],
        score=content["score"],
        history=history,
        samples=history.samples,
        seconds=history.seconds,
    )
