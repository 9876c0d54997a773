"""The budget's ledger is never overdrawn."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sase_ray.execution.budget import Budget


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
        assert any(budget._aside.values()) == bool(running)
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
