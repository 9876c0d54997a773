"""A trial continues after the last epoch that the search has, whatever it had trained beyond it."""

from __future__ import annotations

import pytest
from ray import tune

from trainables.persistence.resumable import (
    NOTE,
    REPORTED,
    TRIAL,
    Kept,
    ResumableTrainable,
    TrialFailedError,
)
from trainables.persistence.store import Store

CHOICE = "gap"


class Counting(ResumableTrainable):
    """Training that only counts, and notes what it does."""

    def prepare(self):
        self.done = []

    def identity(self, config):
        return config["choice"]

    def build(self, config):
        self.done.append("build")
        self.epoch = 0

    def train_epoch(self):
        self.epoch += 1
        self.done.append(self.epoch)
        return {"epoch": self.epoch, "val_loss": 1 / self.epoch, "train_seconds": 1.0 * self.epoch,
                tune.result.DONE: self.epoch == 9}  # fmt: skip

    def state(self):
        return {"epoch": self.epoch}

    def load(self, state):
        self.epoch = state["epoch"]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def begin(store, reported=0, choice=CHOICE):
    config = {TRIAL: "00003", REPORTED: reported, "choice": choice}

    class Bound(Counting):
        def setup(self, config):
            super().setup(config, kept=Kept(store))

    return Bound(config=config)


def epochs(trainable, count):
    results = [trainable.train() for _ in range(count)]
    for result in results:
        assert result[tune.result.TRAINING_ITERATION] == result["epoch"]
        assert result["val_loss"] == 1 / result["epoch"]
    return [result["epoch"] for result in results]


@pytest.mark.parametrize("reported", [0, 1, 2, 3, 4])
def test_the_next_epoch_is_reported_and_only_what_was_not_trained_is(reported, store):
    assert epochs(begin(store), 3) == [1, 2, 3]
    resumed = begin(store, reported)
    expected = [reported + 1, reported + 2, reported + 3]
    assert epochs(resumed, 3) == expected
    assert resumed.done == ["build", *range(4, expected[-1] + 1)]


def test_without_a_checkpoint_what_was_reported_is_trained_again_and_not_reported(store):
    resumed = begin(store, 2)
    assert epochs(resumed, 2) == [3, 4]
    assert resumed.done == ["build", 1, 2, 3, 4]


def test_of_a_damaged_checkpoint_the_one_before_it_is_used_and_the_user_reads_it(store):
    assert epochs(begin(store), 3) == [1, 2, 3]
    kept = store.at("00003")
    newest = kept.names()[-1]
    kept.write(newest, b"damaged")
    resumed = begin(store, 3)
    result = resumed.train()
    assert "the checkpoint of epoch 3" in result[NOTE]
    assert result["epoch"] == 4
    assert resumed.done == ["build", 3, 4]


def test_a_checkpoint_of_something_else_is_not_used(store):
    assert epochs(begin(store), 2) == [1, 2]
    other = begin(store, 0, choice="other")
    assert epochs(other, 1) == [1]
    assert other.done == ["build", 1]


def test_a_process_that_takes_another_trial_forgets_the_first(store):
    trainable = begin(store)
    assert epochs(trainable, 2) == [1, 2]
    assert trainable.reset({TRIAL: "00004", REPORTED: 0, "choice": CHOICE})
    assert epochs(trainable, 1) == [1]
    assert trainable.reset({TRIAL: "00003", REPORTED: 1, "choice": CHOICE})
    assert epochs(trainable, 2) == [2, 3]


def test_a_trial_whose_time_was_over_reports_what_it_had_trained_and_then_fails(store):
    assert epochs(begin(store), 2) == [1, 2]
    store.at("00003").write("exceeded", b"time limit: more than 3 s, in epoch 3")
    resumed = begin(store, 1)
    assert epochs(resumed, 1) == [2]
    with pytest.raises(TrialFailedError, match="time limit: more than 3 s, in epoch 3"):
        resumed.train()
