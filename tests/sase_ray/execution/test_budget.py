"""The budget's ledger is never overdrawn, and the searcher ends when it is used."""

from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.search import Searcher

from sase_ray.execution.budget import Budget, BudgetedSearcher, BudgetStopper
from trainables.persistence.resumable import TRIAL


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_no_sequence_of_events_overdraws_the_budget(data):
    per_epoch = data.draw(st.integers(1, 50), "samples per epoch")
    first = data.draw(st.integers(1, 4), "first epochs")
    total = data.draw(st.integers(0, 1000), "total")
    limit = data.draw(st.none() | st.integers(1, 5), "max trials")
    budget = Budget(total, per_epoch, first, limit)
    # What the trials do, kept beside the ledger: samples seen by each; those that may train on.
    seen: dict[str, int] = {}
    running: dict[str, int] = {}
    lost = 0
    for step in range(data.draw(st.integers(1, 40), "events")):
        event = data.draw(st.sampled_from(["begin", "train", "train", "train", "end", "fail"]))
        if event == "begin":
            trial = f"t{step}"
            if budget.begin(trial):
                seen[trial] = 0
                running[trial] = 1
        elif running:
            trial = data.draw(st.sampled_from(sorted(running)))
            if event == "train":
                seen[trial] += per_epoch  # the epoch that was allowed
                if not budget.go_on(trial, seen[trial]):
                    budget.end(trial)
                    del running[trial]
            elif event == "end":
                budget.end(trial, seen[trial])
                del running[trial]
            else:
                budget.fail(trial)
                lost += per_epoch
                del running[trial]
        assert sum(seen.values()) + lost <= total
        assert budget.used == sum(seen.values()) + lost
        assert budget.used + sum(budget._aside.values()) <= total
        assert budget.busy == bool(running)
        assert limit is None or len(seen) <= limit


def test_a_trial_that_was_begun_for_n_epochs_gets_them_whatever_the_others_do():
    budget = Budget(total=100, samples_per_epoch=10, first_epochs=4)
    assert budget.begin("a")
    assert budget.begin("b")
    assert not budget.begin("c"), "20 are left, 40 are needed"
    assert [budget.go_on("a", 10 * i) for i in (1, 2, 3)] == [True] * 3
    assert [budget.go_on("b", 10 * i) for i in (1, 2, 3, 4)] == [True] * 4
    assert budget.go_on("a", 40)  # of the 20 that are left, b has 10 set aside and a takes 10
    assert not budget.go_on("a", 50)
    assert not budget.begin("c")
    budget.end("a")
    assert not budget.go_on("b", 50)
    assert budget.used == 100


def test_what_a_trial_did_not_use_is_given_back():
    budget = Budget(total=60, samples_per_epoch=10, first_epochs=4)
    assert budget.begin("a")
    assert not budget.begin("b")
    budget.end("a", 20)
    assert budget.used == 20
    assert budget.begin("b")


def test_a_trial_restarted_from_its_checkpoint_is_not_charged_twice():
    budget = Budget(total=40, samples_per_epoch=10, first_epochs=4)
    assert budget.begin("a")
    assert budget.go_on("a", 10)
    assert budget.go_on("a", 20)
    assert budget.go_on("a", 20)  # the epoch again, after a crash
    assert budget.used == 20
    assert budget.go_on("a", 30)


def test_a_copy_is_the_same_ledger():
    budget = Budget(100, 10, 1)
    stopper, searcher = deepcopy((BudgetStopper(budget), Budgeted([{"x": 1}], budget)))
    assert stopper.budget is searcher.budget is budget
    assert searcher.suggest("a") == {"x": 1, TRIAL: "00000"}
    assert not stopper("a", {"samples": 10})
    assert budget.spent == {"a": 10}


class Fixed(Searcher):
    """Suggests from a list, and notes what it is told."""

    def __init__(self, configs):
        super().__init__(metric="loss", mode="min")
        self.configs = list(configs)
        self.told = []

    def suggest(self, trial_id):
        return self.configs.pop(0) if self.configs else Searcher.FINISHED

    def on_trial_result(self, trial_id, result):
        self.told.append(("result", trial_id))

    def on_trial_complete(self, trial_id, result=None, error=False):
        self.told.append(("error" if error else "complete", trial_id))

    def save(self, checkpoint_path):
        raise NotImplementedError

    def restore(self, checkpoint_path):
        raise NotImplementedError


def Budgeted(configs, budget):  # noqa: N802
    return BudgetedSearcher(Fixed(configs), budget)


def test_the_searcher_waits_while_trials_may_give_back_and_then_is_finished():
    budget = Budget(total=50, samples_per_epoch=10, first_epochs=3)
    searcher = Budgeted([{"x": i} for i in range(9)], budget)
    assert searcher.suggest("a") == {"x": 0, TRIAL: "00000"}
    assert searcher.suggest("b") is None, "a may give back what it holds"
    budget.go_on("a", 10)
    searcher.on_trial_complete("a", {})
    assert searcher.suggest("b") == {"x": 1, TRIAL: "00001"}
    budget.go_on("b", 10)
    budget.go_on("b", 20)
    searcher.on_trial_complete("b", {})
    assert searcher.suggest("c") == Searcher.FINISHED, "20 are left, 30 are needed"
    assert searcher.inner.told == [("complete", "a"), ("complete", "b")]
    assert len(searcher.inner.configs) == 7, "nothing was drawn that was not tried"


def test_the_searcher_is_finished_when_the_inner_one_is():
    budget = Budget(total=50, samples_per_epoch=10, first_epochs=1)
    searcher = Budgeted([], budget)
    assert searcher.suggest("a") == Searcher.FINISHED
    assert not budget.busy
    assert budget.spent == {}


def test_the_searcher_is_finished_after_the_most_trials():
    budget = Budget(total=1000, samples_per_epoch=10, first_epochs=1, max_trials=2)
    searcher = Budgeted([{"x": i} for i in range(9)], budget)
    assert [searcher.suggest(name)["x"] for name in "ab"] == [0, 1]
    assert searcher.suggest("c") is None
    for name in "ab":
        searcher.on_trial_complete(name)
    assert searcher.suggest("c") == Searcher.FINISHED


def test_a_search_whose_trials_all_fail_comes_to_an_end():
    budget = Budget(total=100, samples_per_epoch=10, first_epochs=2)
    searcher = Budgeted([{"x": i} for i in range(100)], budget)
    begun = 0
    while searcher.suggest(f"t{begun}") != Searcher.FINISHED:
        searcher.on_trial_complete(f"t{begun}", error=True)
        begun += 1
    assert begun == 9, "each failure costs the epoch it happened in"
    assert budget.used == 90


@pytest.mark.parametrize("samples", [10, 20])
def test_the_stopper_books_the_end_and_stops_what_cannot_be_paid(samples):
    budget = Budget(total=20, samples_per_epoch=10, first_epochs=1)
    stopper = BudgetStopper(budget)
    assert budget.begin("a")
    if samples == 20:
        assert not stopper("a", {"samples": 10})
        assert stopper("a", {"samples": 20}), "a third epoch would be 30"
    else:
        assert not stopper("a", {"samples": 10, "done": True}), "it ends by itself"
        assert not budget.busy
    assert budget.used == samples
    assert not stopper.stop_all()
