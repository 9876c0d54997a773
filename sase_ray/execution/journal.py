"""The journal of a run: all results, stored as they arrive, so that it can be resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sase_ray.execution.observer import Observer
from sase_ray.results.history import History, SearchOutcome
from sase_ray.results.search_id import SearchId
from search_spaces.errors import UserError
from search_spaces.genotype import Genotype
from trainables.metrics import Mode, recorded
from trainables.one_shot.trainable import STOPPED_EARLY
from trainables.persistence.resumable import Result
from trainables.persistence.store import StorageError, Store

FLUSH_SECONDS = 2.0
"""Age from which events are on disk; younger ones are still in the trials' checkpoints."""

_Entry = dict[str, Any]


@dataclass
class Past:
    """The results of a search from before it was interrupted.

    Attributes:
        results: Results of the first epochs by trial.
        failures: Reason of failure by trial.
        order: Trials and epochs in the order in which they were reported.
    """

    results: dict[str, list[Result]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    order: list[tuple[str, int]] = field(default_factory=list)

    def knows(self, trial: str, epoch: int) -> bool:
        """Return whether an evaluation is remembered."""
        return epoch <= len(self.results.get(trial, ()))


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
        self._pasts: dict[SearchId, Past] = {}
        self._recalled: set[SearchId] = set()
        self._flushed = time.monotonic()

    def trials(self, search: SearchId) -> Store:
        """Return the store of the checkpoints of a search's trials."""
        return self.store.at("trials", search.file_name)

    def evaluated(self, search: SearchId, row: Mapping[str, Any]) -> None:
        """Note an evaluation unless the journal held it when the search began."""
        past = self._pasts.get(search)
        if past is not None and past.knows(row["trial"], row["epoch"]):
            return
        self._note(search, {"trial": row["trial"], "result": recorded(row)})

    def trial_ended(self, search: SearchId, trial: str, reason: str | None) -> None:
        """Note the end of a trial, and the reason if it failed."""
        past = self._pasts.get(search)
        if reason is not None and not (past is not None and trial in past.failures):
            self._note(search, {"trial": trial, "reason": reason})
        self._ended.setdefault(search, []).append(trial)

    def _note(self, search: SearchId, event: _Entry) -> None:
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

    def past(self, search: SearchId) -> Past:
        """Read the past results of a search.

        Raises:
            StorageError: A file of the journal is damaged.
        """
        past = Past()
        folder = self.store.at("journal", search.file_name)
        for name in folder.names():
            content = folder.read(name) or b""
            try:
                events = [json.loads(line) for line in content.decode().splitlines()]
                for event in events:
                    _remember(past, event)
            except (ValueError, KeyError, TypeError) as error:
                raise StorageError(f"{folder.place}/{name} is damaged: {error!r}") from None
        self._pasts[search] = past
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


def _remember(past: Past, event: _Entry) -> None:
    trial = str(event["trial"])
    if "reason" in event:
        past.failures[trial] = event["reason"]
        return
    result, known = event["result"], past.results.setdefault(trial, [])
    # An epoch reported again, by a process that replaces one that died, changes nothing.
    if result["epoch"] == len(known) + 1:
        done = result["diverged"] or result["finished"] or _stopped_early(result)
        known.append(result | {"done": done})
        past.order.append((trial, result["epoch"]))


def _stopped_early(result: Result) -> bool:
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
