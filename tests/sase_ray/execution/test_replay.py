"""A search that is given its past decides as the one that lived through it, wherever it is cut."""

from __future__ import annotations

import random

import pytest

from sase_ray.execution.budget import Budget
from sase_ray.execution.journal import Journal
from sase_ray.execution.observer import Observer
from sase_ray.execution.recorder import Recorder
from sase_ray.execution.replay import PastEvent, replay
from sase_ray.execution.search_logic import SearchLogic
from sase_ray.execution.simulation import _result, table_task
from sase_ray.results.history import History
from sase_ray.results.search_id import SearchId
from sase_ray.strategies import BlackBox, SearchTask
from sase_ray.strategies.catalogue import make_strategy, strategies
from trainables.persistence.store import Store

BLACK_BOX = [name for name, strategy in strategies().items() if issubclass(strategy, BlackBox)]
OPTIONS = {"tpe": {"startup_trials": 3}, "tpe-asha": {"startup_trials": 3}}
SEARCH = SearchId("random", 0)


class Heard(Observer):
    """Notes every event."""

    def __init__(self):
        self.events = []

    def evaluated(self, search, row):
        self.events.append(("evaluated", row))

    def trial_ended(self, search, trial, reason):
        self.events.append(("trial_ended", trial, reason))


@pytest.fixture
def task(make_table):
    """A task on a table where every other genotype diverges in its second epoch."""
    texts = make_table().genotypes
    table = make_table(diverged=texts[::2])
    task = table_task(table, seed=3, budget=2500, metric="val_loss")
    return task, table


def begin(name, task, observers=()):
    """Return the logic and the recorder of a search that has decided nothing yet."""
    plan = make_strategy(name, OPTIONS.get(name)).plan(task)
    budget = Budget(task.budget, plan.samples_per_epoch, plan.first_epochs, plan.max_trials)
    logic = SearchLogic(plan, task.metric, task.mode, budget)
    return logic, Recorder(History("val_loss", "min"), task.job.space, SEARCH, observers)


def live(name, task, table, workers, seed, observers):
    """Live through a search in which chance says who reports next, and which trials fail.

    Returns:
        Its steps: the configs that begin, then the event and whether its trial ends.
    """
    draw = random.Random(seed)
    logic, recorder = begin(name, task, observers)
    steps = []
    while True:
        begun = list(logic.fill(workers))
        recorder.prepare(begun)
        if not logic.live:
            return [*steps, ([], None, False)], recorder.history
        trial = draw.choice([*logic.live.values()])
        genotype = task.job.space.from_config(trial.config)
        epoch = trial.epoch + 1
        if draw.random() < 0.1:
            event, ends = PastEvent(trial.trial_id, reason=f"broken at {epoch}"), True
            logic.fail(trial.trial_id)
            recorder.failed(trial.trial_id, event.reason)
        else:
            result = _result(genotype, epoch, table.lookup(genotype, epoch), 3)
            event = PastEvent(trial.trial_id, {**result, "pid": 7, "time_total_s": 0.5})
            ends = logic.result(trial.trial_id, event.result)
            recorder.evaluated(trial.trial_id, event.result)
            if ends:
                recorder.ended(trial.trial_id)
        steps.append(([one.config for one in begun], event, ends))


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("name", BLACK_BOX)
def test_it_decides_as_if_undisturbed_wherever_it_is_cut(name, workers, task, tmp_path):
    task, table = task
    heard, journal = Heard(), Journal(Store(tmp_path))
    steps, history = live(name, task, table, workers, workers, [heard, journal])
    journal.flush()
    past = Journal(Store(tmp_path)).past(SEARCH)
    assert len(past) == len(steps) - 1 > 20
    assert history.failures
    assert any(row["diverged"] for row in history.evaluations)
    for cut in range(len(past) + 1):
        again = Heard()
        logic, recorder = begin(name, task, [again])
        assert replay(past[:cut], logic, recorder, workers) == cut
        known = {c["trial"]: c for begun, _, _ in steps[: cut + 1] for c in begun}
        epochs = {event.trial: event.result["epoch"] for event in past[:cut] if event.result}
        ended = {event.trial for _, event, ends in steps[:cut] if ends}
        assert {t.trial_id: t.config for t in logic.live.values()} == {
            number: config for number, config in known.items() if number not in ended
        }
        assert all(t.epoch == epochs.get(t.trial_id, 0) for t in logic.live.values())
        for _, event, ends in steps[cut:-1]:
            if event.result is None:
                logic.fail(event.trial)
                recorder.failed(event.trial, event.reason)
            else:
                assert logic.result(event.trial, event.result) == ends
                recorder.evaluated(event.trial, event.result)
                if ends:
                    recorder.ended(event.trial)
            recorder.prepare(begun := list(logic.fill(workers)))
            following = steps[cut + 1][0]
            assert [trial.config for trial in begun] == following
            cut += 1
        assert not logic.live
        assert again.events == heard.events
        assert recorder.history == history


def test_events_of_another_course_are_left_out_and_the_search_goes_its_own_way(task):
    task, table = task
    steps, _ = live("tpe-asha", task, table, 2, 0, [])
    past = [event for _, event, _ in steps[:-1]]
    other = next(str(g) for g in task.job.space if str(g) not in {
        event.result["genotype"] for event in past if event.result
    })  # fmt: skip
    cut = next(i for i, event in enumerate(past) if i > 9 and event.result)
    expected, _ = begin("tpe-asha", task)
    changed = [
        PastEvent(past[cut].trial, {**past[cut].result, "genotype": other}),
        PastEvent(past[cut].trial, {**past[cut].result, "epoch": 9}),
        PastEvent("00099", past[cut].result),
        PastEvent("00099", reason="broken"),
        next(event for event, (_, _, ends) in zip(past, steps, strict=False) if ends),
    ]
    for event in changed:
        logic, recorder = begin("tpe-asha", task, [heard := Heard()])
        assert replay([*past[:cut], event, *past[cut + 1 :]], logic, recorder, 2) == cut
        expected, undisturbed = begin("tpe-asha", task, [reference := Heard()])
        replay(past[:cut], expected, undisturbed, 2)
        assert heard.events == reference.events
        assert logic.live == expected.live
        assert logic.budget.spent == expected.budget.spent


def test_a_search_that_is_one_trial_is_replayed_too(make_job):
    plan = make_strategy("darts", {"batch_size": 16}).plan
    task = SearchTask(make_job(), 500)
    result = {
        "genotype": "any", "epoch": 1, "samples": 96, "train_seconds": 1.0, "val_loss": 1.0,
        "diverged": False, "reason": "", "finished": False, "done": False,
    }  # fmt: skip
    second = {**result, "epoch": 2, "samples": 192, "genotype": "another"}
    last = {**second, "epoch": 3, "samples": 288, "done": True, "finished": True}
    whole = [result, second, last]
    for count, live in [(0, 0), (1, 1), (2, 2), (3, None)]:
        one = plan(task)
        budget = Budget(task.budget, one.samples_per_epoch, one.first_epochs, one.max_trials)
        logic = SearchLogic(one, "val_loss", "min", budget)
        recorder = Recorder(History("val_loss", "min"), task.job.space, SEARCH)
        events = [PastEvent("00000", event) for event in whole[:count]]
        assert replay(events, logic, recorder, 1) == count
        assert [trial.epoch for trial in logic.live.values()] == [live] * (live is not None)
        assert logic.begin() is None
