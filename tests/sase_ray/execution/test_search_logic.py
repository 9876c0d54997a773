"""The logic of a search begins what the budget pays, ends what it does not, and is then finished.

Also: the same logic as Ray Tune sees it.
"""

from __future__ import annotations

import pickle
from copy import deepcopy

import pytest
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sase_ray.execution.budget import Budget
from sase_ray.execution.in_tune import LARGER_SHARE, LogicInTune
from sase_ray.execution.search_logic import SearchLogic
from sase_ray.strategies import Plan
from trainables.persistence.resumable import (
    OUT_OF_MEMORY,
    REPORTED,
    SHARE_FACTOR,
    TRIAL,
    ResumableTrainable,
)


class Fixed(Searcher):
    """Suggests from a list, and notes what it is told."""

    def __init__(self, configs):
        super().__init__(metric="loss", mode="min")
        self.configs = list(configs)
        self.told = []

    def set_search_properties(self, metric, mode, config, **spec):
        self.told.append((metric, mode, config))
        return True

    def suggest(self, trial_id):
        return self.configs.pop(0) if self.configs else Searcher.FINISHED

    def on_trial_result(self, trial_id, result):
        self.told.append(("result", trial_id, result["epoch"]))

    def on_trial_complete(self, trial_id, result=None, error=False):
        self.told.append(("error",) if error else ("complete", trial_id, result["epoch"]))

    def save(self, checkpoint_path):
        raise NotImplementedError

    def restore(self, checkpoint_path):
        raise NotImplementedError


class Told(FIFOScheduler):
    """Notes what it is told, and answers what it is asked to."""

    def __init__(self, answer=TrialScheduler.CONTINUE):
        super().__init__()
        self.answer, self.told = answer, []

    def on_trial_add(self, tune_controller, trial):
        self.told.append(("add", trial.trial_id, trial.config["x"]))

    def on_trial_result(self, tune_controller, trial, result):
        self.told.append(("result", trial.trial_id, result["epoch"]))
        return self.answer

    def on_trial_complete(self, tune_controller, trial, result):
        self.told.append(("complete", trial.trial_id, result["epoch"]))

    def on_trial_error(self, tune_controller, trial):
        self.told.append(("error", trial.trial_id))


def logic_of(configs, budget, scheduler=None):
    plan = Plan(
        ResumableTrainable, {}, 10, 1, param_space={"x": 0}, searcher=Fixed(configs),
        scheduler=scheduler,
    )  # fmt: skip
    return SearchLogic(plan, "loss", "min", budget)


def after(epoch, **more):
    return {"epoch": epoch, "samples": 10 * epoch, "done": False} | more


def xs(trials):
    return [trial and trial.config["x"] for trial in trials]


def test_it_waits_while_trials_may_give_back_and_then_nothing_begins():
    logic = logic_of([{"x": i} for i in range(9)], Budget(50, 10, 3))
    first = logic.begin()
    assert first.config == {"x": 0, TRIAL: "00000"}
    assert logic.begin() is None, "the first may give back what it holds"
    assert not logic.result("00000", after(1))
    assert logic.result("00000", after(2, done=True))
    assert list(logic.fill(5)) == [*logic.live.values()]
    assert [trial.config for trial in logic.live.values()] == [{"x": 1, TRIAL: "00001"}]
    logic.result("00001", after(1))
    assert logic.live["00001"].epoch == 1
    assert logic.result("00001", after(2, done=True))
    assert logic.begin() is None, "10 are left, 30 are needed"
    assert not logic.live
    assert logic.searcher.told == [
        ("loss", "min", {"x": 0}),
        ("result", "00000", 1),
        ("complete", "00000", 2),
        ("result", "00001", 1),
        ("complete", "00001", 2),
    ]
    assert len(logic.searcher.configs) == 7, "nothing was drawn that was not tried"


def test_nothing_begins_when_the_searcher_is_finished_or_has_nothing_now():
    logic = logic_of([{"x": 0}, None, {"x": 1}], Budget(100, 10, 1))
    assert xs([logic.begin(), logic.begin(), logic.begin()]) == [0, None, 1]
    assert logic.begin() is None
    logic.searcher.configs.append({"x": 2})
    assert logic.begin() is None, "it said that it was finished"
    assert sorted(logic.budget.spent) == ["00000", "00001"]


def test_no_more_trials_begin_than_may():
    logic = logic_of([{"x": i} for i in range(9)], Budget(1000, 10, 1, max_trials=2))
    assert xs(logic.fill(4)) == [0, 1]
    for number in ("00000", "00001"):
        logic.result(number, after(1, done=True))
    assert logic.begin() is None


def test_a_search_whose_first_trials_all_fail_ends_at_once():
    logic = logic_of([{"x": i} for i in range(100)], Budget(100, 10, 2), scheduler := Told())
    while (trial := logic.begin()) is not None:
        logic.fail(trial.trial_id)
    assert logic.begun == 3
    assert logic.budget.used == 30, "each failure costs the epoch it happened in"
    assert scheduler.told[:2] == [("add", "00000", 0), ("error", "00000")]
    assert logic.searcher.told[1:] == [("error",)] * 3
    assert in_tune(logic).suggest("next") == Searcher.FINISHED


def test_a_search_whose_later_trials_fail_comes_to_an_end_by_its_budget():
    logic = logic_of([{"x": i} for i in range(100)], Budget(100, 10, 2))
    logic.result(logic.begin().trial_id, after(1, done=True))
    while (trial := logic.begin()) is not None:
        logic.fail(trial.trial_id)
    assert logic.begun == 9, "each failure costs the epoch it happened in"


def test_a_search_waits_for_what_still_runs_when_others_have_failed():
    logic = logic_of([{"x": i} for i in range(100)], Budget(1000, 10, 2))
    tune_side = in_tune(logic)
    first, *others = (logic.live[tune_side.suggest(str(i))["trial"]] for i in range(4))
    for trial in others:
        logic.fail(trial.trial_id)
    assert tune_side.suggest("waits") is None
    logic.result(first.trial_id, after(1))
    assert logic.begin() is not None


@pytest.mark.parametrize(
    ("total", "answer", "result", "ends", "asked"),
    [
        (100, TrialScheduler.CONTINUE, after(1), False, True),
        (100, TrialScheduler.STOP, after(1), True, True),
        (10, TrialScheduler.CONTINUE, after(1), True, False),  # a second epoch would be 20
        (100, TrialScheduler.CONTINUE, after(1, done=True), True, False),
    ],
)
def test_a_trial_ends_by_itself_by_the_budget_or_by_the_scheduler(
    total, answer, result, ends, asked
):
    logic = logic_of([{"x": 5}], Budget(total, 10, 1), scheduler := Told(answer))
    logic.begin()
    assert logic.result("00000", result) == ends
    expected = [("add", "00000", 5)]
    expected += [("result", "00000", 1)] * asked
    expected += [("complete", "00000", 1)] * ends
    assert scheduler.told == expected
    assert logic.searcher.told[1:] == [("complete" if ends else "result", "00000", 1)]
    assert logic.budget.used == 10
    assert list(logic.live) == ["00000"] * (not ends)


def test_a_scheduler_that_pauses_trials_is_refused():
    logic = logic_of([{"x": 5}], Budget(100, 10, 1), Told(TrialScheduler.PAUSE))
    logic.begin()
    with pytest.raises(ValueError, match="Told pauses trials"):
        logic.result("00000", after(1))


def in_tune(logic):
    made = LogicInTune(logic)
    assert made.set_search_properties("other", "max", {"x": 7})
    assert (made.metric, made.mode) == ("loss", "min")
    return made


def test_tune_starts_live_trials_first_after_their_last_result_and_then_new_ones():
    logic = logic_of([{"x": i} for i in range(3)], Budget(1000, 10, 1))
    list(logic.fill(2))
    logic.result("00001", after(1))
    tuned = in_tune(logic)
    assert tuned.suggest("a") == {"x": 0, TRIAL: "00000", REPORTED: 0}
    assert tuned.suggest("b") == {"x": 1, TRIAL: "00001", REPORTED: 1}
    assert tuned.suggest("c") == {"x": 2, TRIAL: "00002", REPORTED: 0}
    assert tuned.suggest("d") is None, "others are live"
    assert not tuned("b", after(2))
    assert logic.live["00001"].epoch == 2
    assert tuned("a", after(1, done=True))
    tuned.on_trial_complete("a", after(1, done=True))
    tuned.on_trial_complete("b", error=True)
    assert list(logic.live) == ["00002"]
    assert logic.budget.used == 10 + 30
    tuned.on_trial_complete("c", error=True)
    assert tuned.suggest("d") == Searcher.FINISHED
    assert not tuned.stop_all()


def test_a_trial_without_memory_goes_on_with_a_larger_share_before_another_begins():
    logic = logic_of([{"x": i} for i in range(3)], Budget(1000, 10, 1))
    tuned = in_tune(logic)
    tuned.suggest("a")
    assert not tuned("a", after(1))
    without = {OUT_OF_MEMORY: 0.25, "samples": 0, "done": True}
    told = list(logic.searcher.told)
    assert tuned("a", without)
    tuned.on_trial_complete("a", without)
    assert logic.searcher.told == told
    assert tuned.suggest("b") == {"x": 0, TRIAL: "00000", REPORTED: 1, SHARE_FACTOR: LARGER_SHARE}
    assert tuned.suggest("c")["x"] == 1
    assert not tuned("b", after(2))
    assert logic.budget.used == 20


def test_tunes_copies_are_one_searcher_and_what_tune_saves_is_small():
    logic = logic_of([{"x": 1}], Budget(100, 10, 1))
    searcher, stopper = deepcopy((tuned := in_tune(logic), tuned))
    assert searcher is stopper is tuned
    assert len(pickle.dumps(tuned)) < 500
