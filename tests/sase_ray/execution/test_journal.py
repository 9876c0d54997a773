"""A journal gives back what was noted, once, whatever was cut off."""

from __future__ import annotations

import math

import pytest

from sase_ray.execution.journal import Journal
from sase_ray.execution.replay import PastEvent
from sase_ray.results.history import History, SearchOutcome
from sase_ray.results.search_id import SearchId
from trainables.one_shot.trainable import STOPPED_EARLY
from trainables.persistence.store import StorageError, Store

GENOTYPES = [
    "gap-conv3-affine-gap-pnorm-conv3x3",
    "pnorm-conv5-affine-gap-gap-conv7x7",
]


def row(trial, epoch, loss=0.5, **more):
    return {
        "trial": f"{trial:05d}",
        "genotype": GENOTYPES[trial % 2],
        "epoch": epoch,
        "samples": 100 * epoch,
        "train_seconds": 0.1 * epoch,
        "train_loss": 1 / 3,
        "val_loss": loss,
        "val_accuracy": 0.1,
        "diverged": False,
        "reason": "",
        "finished": epoch == 3,
    } | more


def result(row):
    done = row["diverged"] or row["finished"]
    counted = {"done": done, "training_iteration": row["epoch"]}
    return {key: value for key, value in row.items() if key != "trial"} | counted


def turns(past):
    """Trials and epochs of past events; None where a trial failed."""
    return [(event.trial, event.result and event.result["epoch"]) for event in past]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_what_was_noted_is_remembered_in_its_order(store):
    rows = [row(0, 1), row(1, 1, math.inf, diverged=True), row(0, 2, 0.1 + 0.2), row(0, 3)]
    first = Journal(store)
    first.evaluated(SearchId("random", 0), rows[0])
    first.flush()
    first.evaluated(SearchId("random", 0), rows[1])
    first.trial_ended(SearchId("random", 0), "00001", "it diverged")
    first.flush()
    second = Journal(store)  # of the process that resumes
    second.evaluated(SearchId("random", 0), rows[2])
    second.evaluated(SearchId("random", 0), rows[3] | {"search_samples": 7, "incumbent": "x"})
    second.evaluated(SearchId("tpe", 0), rows[0])
    second.flush()
    past = Journal(store).past(SearchId("random", 0))
    assert past == [
        PastEvent("00000", result(rows[0])),
        PastEvent("00001", result(rows[1])),
        PastEvent("00001", reason="it diverged"),
        PastEvent("00000", result(rows[2])),  # to the last bit
        PastEvent("00000", result(rows[3])),
    ]


def test_what_was_not_flushed_is_gone_and_nothing_else(store):
    journal = Journal(store)
    journal.evaluated(SearchId("random", 0), row(0, 1))
    journal.flush(now=False)  # too early
    assert Journal(store).past(SearchId("random", 0)) == []
    journal.flush()
    journal.evaluated(SearchId("random", 0), row(0, 2))
    assert turns(Journal(store).past(SearchId("random", 0))) == [("00000", 1)]


def test_an_epoch_that_an_older_version_noted_twice_counts_once(store):
    journal = Journal(store)
    for epoch in (1, 2, 2, 1, 3):
        journal.evaluated(SearchId("random", 0), row(0, epoch))
    journal.flush()
    assert turns(journal.past(SearchId("random", 0))) == [("00000", i) for i in (1, 2, 3)]


def test_a_search_that_leaves_its_course_keeps_what_it_was_given_of_it_and_what_follows(store):
    search = SearchId("random", 0)
    first = Journal(store)
    for trial, epoch in [(0, 1), (1, 1), (1, 2), (0, 2)]:
        first.evaluated(search, row(trial, epoch))
    first.flush()
    resumed = Journal(store)
    assert len(resumed.past(search)) == 4
    for trial, epoch in [(0, 1), (1, 1)]:  # as the search replays them
        resumed.evaluated(search, row(trial, epoch))
    resumed.rewound(search, 2)
    resumed.evaluated(search, row(1, 2, loss=0.25))
    resumed.trial_ended(search, "00000", "broken")
    resumed.flush()
    past = Journal(store).past(search)
    assert turns(past) == [("00000", 1), ("00001", 1), ("00001", 2), ("00000", None)]
    assert past[2].result["val_loss"] == 0.25


def test_checkpoints_of_a_trial_go_only_once_its_results_are_written(store):
    journal = Journal(store)
    kept = journal.trials(SearchId("random", 0))
    kept.write("00000/000003-x.pt", b"state")
    kept.write("00001/000001-x.pt", b"state")
    journal.evaluated(SearchId("random", 0), row(0, 3))
    journal.trial_ended(SearchId("random", 0), "00000", None)
    assert kept.at("00000").names()
    journal.flush()
    assert not kept.at("00000").names()
    assert kept.at("00001").names()


def test_how_a_search_ended_takes_the_place_of_its_journal(store):
    history = History("val_loss", "min", samples=50, seconds=1.5)
    for one in (row(0, 1), row(1, 1), row(0, 2), row(0, 3, 0.25)):
        history.add(one["trial"], one)
    history.genotypes["00002"] = GENOTYPES[0]
    history.failures["00002"] = "ValueError: broken"
    ranking = history.ranked_trials()
    outcome = SearchOutcome(
        "random", 0, ranking, "val_loss (lower is better)", history, history.samples, 3.25
    )
    journal = Journal(store)
    journal.evaluated(SearchId("random", 0), row(0, 1))
    journal.flush()
    journal.trials(SearchId("random", 0)).write("00000/x.pt", b"state")
    journal.search_ended(SearchId("random", 0), outcome)
    assert journal.outcome(SearchId("random", 1)) is None
    resumed = Journal(store)
    again = resumed.outcome(SearchId("random", 0))
    assert again.history.evaluations == history.evaluations
    assert again.history.trials() == history.trials()
    assert (again.ranking, again.score) == (outcome.ranking, outcome.score)
    assert (again.samples, again.strategy, again.seed) == (450, "random", 0)
    assert Journal(store).past(SearchId("random", 0)) == []
    assert store.at("trials").names() == []
    store.at("outcomes").remove()
    resumed.search_ended(SearchId("random", 0), again)
    assert store.at("outcomes").names() == [], "what was read is not written again"


def test_what_a_resumed_search_reports_again_is_not_written_again(store):
    search = SearchId("random", 0)
    first = Journal(store)
    first.evaluated(search, row(0, 1))
    first.trial_ended(search, "00001", "it diverged")
    first.flush()
    resumed = Journal(store)
    resumed.past(search)
    resumed.evaluated(search, row(0, 1))
    resumed.trial_ended(search, "00001", "it diverged")
    resumed.flush()
    assert store.at("journal").at("random-seed0").names() == ["00000000.jsonl"]
    resumed.evaluated(search, row(0, 2))
    resumed.flush()
    assert turns(Journal(store).past(search)) == [("00000", 1), ("00001", None), ("00000", 2)]


@pytest.mark.parametrize("content", [b"\xff\x00", b'{"trial": ', b'{"trial": "0"}\n', b"[]\n"])
def test_a_damaged_file_is_named(store, content):
    store.write("journal/random-seed0/00000000.jsonl", content)
    with pytest.raises(StorageError, match=r"journal/random-seed0/00000000.jsonl is damaged"):
        Journal(store).past(SearchId("random", 0))
    store.write("outcomes/random-seed0.json", content)
    with pytest.raises(StorageError, match=r"outcomes/random-seed0.json is damaged"):
        Journal(store).outcome(SearchId("random", 0))


def test_a_search_that_stopped_early_has_ended_and_is_not_continued(store):
    journal = Journal(store)
    journal.evaluated(SearchId("darts", 0), row(0, 1))
    journal.evaluated(
        SearchId("darts", 0), row(0, 2, reason=f"{STOPPED_EARLY}: the loss became sharp")
    )
    journal.flush()
    first, second = Journal(store).past(SearchId("darts", 0))
    assert not first.result["done"]
    assert second.result["done"]
