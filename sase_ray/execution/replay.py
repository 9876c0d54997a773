"""The replay of an interrupted search: what had reached it decides again, before Ray Tune starts.

Trials that had ended are not started again; those that had not continue after their last result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sase_ray.execution.recorder import Recorder
from sase_ray.execution.search_logic import SearchLogic
from trainables.persistence.resumable import Result


@dataclass(frozen=True)
class PastEvent:
    """A result or a failure that reached a search before it was interrupted.

    Attributes:
        trial: Number of the trial.
        result: Result of an epoch, including `tune.result.DONE`; None for a failure.
        reason: Reason of a failure.
    """

    trial: str
    result: Result | None = None
    reason: str = ""


def replay(
    events: Sequence[PastEvent], logic: SearchLogic, recorder: Recorder, workers: int
) -> int:
    """Give past events to a new search, and begin the trials that ran when it was interrupted.

    A trial begins as soon as a worker is free, which is what Ray Tune does too: between the end of
    a trial and the beginning of the next one, no other result is taken.

    Args:
        events: Past events in the order of their arrival.
        logic: Logic of the search, which has not decided anything yet.
        recorder: Recorder of the search, which is notified of every event again.
        workers: Number of trials at a time.

    Returns:
        Number of events that belong to the course of this search. It is smaller than their number
        if the search now suggests other trials, as another version of a sampler may do.
    """
    fitting = 0
    for event in events:
        recorder.prepare(logic.fill(workers))
        if not _fits(event, logic, recorder):
            break
        if event.result is None:
            logic.fail(event.trial)
            recorder.failed(event.trial, event.reason)
        else:
            ends = logic.result(event.trial, event.result)
            recorder.evaluated(event.trial, event.result)
            if ends:
                recorder.ended(event.trial)
        fitting += 1
    recorder.prepare(logic.fill(workers))
    return fitting


def _fits(event: PastEvent, logic: SearchLogic, recorder: Recorder) -> bool:
    trial = logic.live.get(event.trial)
    if trial is None or event.result is None:
        return trial is not None
    genotype = recorder.history.genotypes.get(event.trial, event.result["genotype"])
    return event.result["epoch"] == trial.epoch + 1 and event.result["genotype"] == genotype
