"""The logic of a search as Ray Tune's searcher and stopper."""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune.search import Searcher

from sase_ray.execution.search_logic import LiveTrial, SearchLogic
from trainables.persistence.resumable import OUT_OF_MEMORY, REPORTED, SHARE_FACTOR, TRIAL

LARGER_SHARE = 2
"""Factor on the GPU share of a trial that ran out of memory."""


class LogicInTune(Searcher, tune.Stopper):
    """Searcher and stopper of Ray Tune that ask the logic of a search.

    Trials that are live when Tune starts are its first suggestions. Tune's own names of trials end
    here: a trial that Tune starts twice, after an interruption or with a larger share of a GPU, is
    one trial of the search.

    Args:
        logic: Logic of the search.
    """

    def __init__(self, logic: SearchLogic) -> None:
        super().__init__(metric=logic.metric, mode=logic.mode)
        self.logic = logic
        self._waiting = [_config_to_continue(trial) for trial in logic.live.values()]
        self._trials: dict[str, LiveTrial] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> LogicInTune:
        # Tune copies searchers; searcher and stopper must be one.
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave out everything: Tune saves its searcher, and nothing reads that."""
        return {}

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Return True: the logic has metric, mode and space."""
        return True

    def suggest(  # type: ignore[override]  # Tune's own annotation forgets FINISHED
        self, trial_id: str
    ) -> dict[str, Any] | str | None:
        """Return a config; None while running trials may give samples back; else FINISHED."""
        if self._waiting:
            config = self._waiting.pop(0)
        elif (trial := self.logic.begin()) is not None:
            config = _config_to_continue(trial)
        else:
            return None if self.logic.live else Searcher.FINISHED
        self._trials[trial_id] = self.logic.live[config[TRIAL]]
        return config

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Take a result; return whether the trial ends."""
        trial = self._trials[trial_id]
        if OUT_OF_MEMORY in result:
            self._waiting.append({**_config_to_continue(trial), SHARE_FACTOR: LARGER_SHARE})
            return True
        return self.logic.result(trial.trial_id, result)

    def stop_all(self) -> bool:
        """Return False: the searcher ends the search when nothing can begin."""
        return False

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Pass a failure on; every other end is known from the last result."""
        trial = self._trials.pop(trial_id)
        if error and trial.trial_id in self.logic.live:
            self.logic.fail(trial.trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the journal does."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


def _config_to_continue(trial: LiveTrial) -> dict[str, Any]:
    return {**trial.config, REPORTED: trial.epoch}
