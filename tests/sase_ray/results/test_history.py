"""The history of a search against a recomputation from all its rows."""

from __future__ import annotations

import errno
import os
import time
import traceback
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sase_ray.execution.failures import reason_of
from sase_ray.execution.observer import Observer
from sase_ray.execution.recorder import Recorder
from sase_ray.results.history import History
from sase_ray.results.search_id import SearchId
from search_spaces.errors import UserError
from search_spaces.genotype import Genotype
from search_spaces.space import SearchSpace
from trainables.persistence.resumable import TRIAL, TrialFailedError
from trainables.persistence.store import StorageError

PLAIN = "gap-conv3-affine-gap-gap-affine"
GENOTYPES = [f"gap-conv{i}-affine-gap-gap-affine" for i in range(40)]


def result(genotype, epoch, loss, *, diverged=False, accuracy=0.5, **extra):
    return {
        "genotype": GENOTYPES[genotype],
        "epoch": epoch,
        "samples": 10 * epoch,
        "train_seconds": 0.5 * epoch,
        "val_loss": loss,
        "val_accuracy": accuracy,
        "diverged": diverged,
        "reason": "training loss is not finite" if diverged else "",
        "config": {"not": "kept"},
        **extra,
    }


def expected_incumbent(rows, sign):
    """By hand: of each trial its last row; not diverged, then longest, then best, then earliest."""
    last = {}
    for row in rows:
        last[row["trial"]] = row
    best = None
    for row in last.values():
        if best is None:
            best = row
        elif row["diverged"] != best["diverged"]:
            best = best if row["diverged"] else row
        elif row["epoch"] != best["epoch"]:
            best = row if row["epoch"] > best["epoch"] else best
        elif sign * row["val_loss"] < sign * best["val_loss"]:
            best = row
    return last, best


def _standing(row):
    return row["diverged"], row["epoch"], row["val_loss"]


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_incumbent_samples_and_ranking_equal_a_recomputation(data):
    mode = data.draw(st.sampled_from(["min", "max"]))
    sign = 1 if mode == "min" else -1
    history = History("val_loss", mode)
    added: list[dict] = []
    epochs: dict[int, int] = {}
    # Losses all differ, so that no tie has to be broken.
    losses = data.draw(st.permutations(range(30)))
    for loss in losses:
        trial = data.draw(st.integers(0, 6))
        epoch = epochs[trial] = epochs.get(trial, 0) + 1
        diverged = data.draw(st.sampled_from([False, False, False, True]))
        value = float("inf") * sign if diverged else float(loss)
        row = history.add(f"t{trial}", result(trial, epoch, value, diverged=diverged))
        added.append({"trial": f"t{trial}", **result(trial, epoch, value, diverged=diverged)})

        last, best = expected_incumbent(added, sign)
        (incumbent,) = (r for r in last.values() if r["genotype"] == row["incumbent"])
        assert _standing(incumbent) == _standing(best), "but for ties of diverged trials"
        assert row["incumbent_val_loss"] == best["val_loss"]
        assert row["search_samples"] == history.samples == sum(r["samples"] for r in last.values())
        assert row["search_seconds"] == sum(r["train_seconds"] for r in last.values())
    assert [(r["trial"], r["epoch"]) for r in history.evaluations] == [
        (r["trial"], r["epoch"]) for r in added
    ]
    ranked = sorted(last.values(), key=lambda r: (r["diverged"], -r["epoch"], sign * r["val_loss"]))
    by_genotype = {r["genotype"]: r for r in ranked}
    order = [by_genotype[str(genotype)] for genotype, _ in history.ranked_trials()]
    assert [_standing(r) for r in order] == [_standing(r) for r in ranked]


def test_the_longest_trained_comes_first_then_the_metric_and_the_diverged_last():
    history = History("val_loss", "min")
    history.add("short", result(0, 1, 0.1))
    history.add("long", result(1, 3, 0.9))
    history.add("longer and better", result(2, 3, 0.8))
    history.add("broken", result(3, 9, float("inf"), diverged=True))
    order = [str(genotype) for genotype, _ in history.ranked_trials()]
    assert order == [GENOTYPES[i] for i in (2, 1, 0, 3)]
    assert history.evaluations[-1]["incumbent"] == GENOTYPES[2]


def test_accuracy_is_better_when_it_is_large():
    history = History("val_accuracy", "max")
    history.add("a", result(0, 1, 0.1, accuracy=0.3))
    history.add("b", result(1, 1, 0.9, accuracy=0.7))
    assert history.evaluations[-1]["incumbent_val_accuracy"] == 0.7
    assert [score for _, score in history.ranked_trials()] == [0.7, 0.3]


def test_a_genotype_tried_twice_is_ranked_once_by_its_better_trial():
    history = History("val_loss", "min")
    history.add("a", result(0, 2, 0.5))
    history.add("b", result(1, 2, 0.4))
    history.add("c", result(0, 2, 0.3))
    assert [(str(g), score) for g, score in history.ranked_trials()] == [
        (GENOTYPES[0], 0.3),
        (GENOTYPES[1], 0.4),
    ]


def test_an_incumbent_that_diverges_gives_way():
    history = History("val_loss", "min")
    history.add("a", result(0, 1, 0.5))
    history.add("b", result(1, 1, 0.1))
    row = history.add("b", result(1, 2, float("inf"), diverged=True))
    assert row["incumbent"] == GENOTYPES[0]


def test_failures_and_divergences_are_told_by_trial():
    history = History("val_loss", "min")
    history.add("fine", result(0, 1, 0.5, alpha={"x": [1.0]}, ranking=[], finished=True))
    history.add("early", result(3, 1, 0.9, finished=False))
    history.add("diverged", result(1, 1, float("inf"), diverged=True))
    history.add("died later", result(2, 1, 0.7))
    history.failures["died later"] = "the worker ran out of memory"
    history.failures["never began"] = "ValueError: no such thing"
    history.genotypes["never began"] = GENOTYPES[4]
    rows = {row["trial"]: row for row in history.trials()}
    assert {name: row["status"] for name, row in rows.items()} == {
        "fine": "finished",
        "early": "stopped",
        "diverged": "diverged",
        "died later": "failed",
        "never began": "failed",
    }
    assert rows["diverged"]["reason"] == "training loss is not finite"
    assert rows["died later"]["reason"] == "the worker ran out of memory"
    assert rows["died later"]["val_loss"] == 0.7
    assert rows["never began"]["reason"] == "ValueError: no such thing"
    assert rows["never began"]["genotype"] == GENOTYPES[4]
    assert "alpha" not in rows["fine"]
    assert "config" not in rows["fine"]


def test_a_search_without_a_result_says_why():
    history = History("val_loss", "min")
    for ask in (history.ranked_trials, history.last_ranking):
        with pytest.raises(UserError, match="nothing was reported"):
            ask()
    history.failures["a"] = "ValueError: this operation is broken"
    with pytest.raises(UserError, match="this operation is broken"):
        history.ranked_trials()


def test_the_last_ranking_is_that_before_a_divergence():
    history = History("val_loss", "min")
    history.add("a", result(0, 1, 0.5, ranking=[[GENOTYPES[3], -1.0], [GENOTYPES[4], -2.0]]))
    history.add("a", result(0, 2, 0.4, ranking=[[GENOTYPES[5], -0.5]]))
    assert [(str(g), score) for g, score in history.last_ranking()] == [(GENOTYPES[5], -0.5)]
    nan = float("nan")
    history.add("a", result(0, 3, float("inf"), diverged=True, ranking=[[GENOTYPES[0], nan]]))
    assert [(str(g), score) for g, score in history.last_ranking()] == [(GENOTYPES[5], -0.5)]

    lost = History("val_loss", "min")
    lost.add("a", result(0, 1, float("inf"), diverged=True, ranking=[[GENOTYPES[0], nan]]))
    with pytest.raises(UserError, match="training loss is not finite"):
        lost.last_ranking()


@pytest.mark.parametrize(
    ("text", "reason"),
    [("Failure # 1\nTraceback\n  ValueError: why\n\n", "ValueError: why"), ("", "unknown error")],
)
def test_the_recorder_keeps_the_last_line_of_an_error(text, reason, tmp_path):
    history, heard = History("val_loss", "min"), []
    space = SearchSpace.load("sase")
    observer, search = Observer(), SearchId("random", 0)
    observer.evaluated = lambda *event: heard.append(event)
    observer.trial_ended = lambda *event: heard.append(event)
    recorder = Recorder(history, space, search, [observer])
    (tmp_path / "error.txt").write_text(text)
    config = space.to_config(Genotype.parse(PLAIN))
    trial = SimpleNamespace(error_file=str(tmp_path / "error.txt"), config={**config, TRIAL: "a"})
    other = SimpleNamespace(error_file=None, config={TRIAL: "b"})
    recorder.on_trial_start(0, [], trial)
    recorder.on_trial_start(0, [], other)
    recorder.on_trial_result(0, [], trial, result(0, 1, 0.5))
    recorder.on_trial_error(0, [], trial)
    recorder.on_trial_error(0, [], other)
    evaluated = [(search, row) for row in history.evaluations]
    assert heard == [*evaluated, (search, "a", reason), (search, "b", "unknown error")]
    assert history.genotypes == {"a": PLAIN}
    assert history.failures == {"a": reason, "b": "unknown error"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_nothing_is_no_fault_of_the_genotype(code, tmp_path):
    text = tmp_path / "error.txt"
    text.write_text(f"Traceback\nOSError: [Errno {code}] {os.strerror(code)}: '/there/pointer'")
    history = History("val_loss", "min")
    trial = SimpleNamespace(trial_id="x", config={TRIAL: "a"}, error_file=str(text))
    recorder = Recorder(history, SearchSpace.load("sase"), SearchId("random", 0))
    with pytest.raises(StorageError, match=os.strerror(code)):
        recorder.on_trial_error(0, [], trial)
    assert history.failures == {}


def test_a_reason_is_given_without_the_name_of_our_own_exception():
    try:
        raise TrialFailedError("out of memory on 0.5 GPU")
    except TrialFailedError:
        text = traceback.format_exc()
    assert "trainables.persistence.resumable.TrialFailedError: out" in text
    assert reason_of(text) == "out of memory on 0.5 GPU"


@pytest.mark.parametrize("trials", [10, 1000, 10_000])
def test_ten_thousand_evaluations_are_added_in_two_seconds(trials):
    history = History("val_loss", "min")
    started = time.process_time()
    for i in range(10_000):
        # The loss falls all along, so that each evaluation is the new incumbent.
        epoch = i // trials + 1
        history.add(f"t{i % trials}", result(i % 40, epoch, 1 / (i + 1)))
    assert time.process_time() - started < 2
    assert len(history.evaluations) == 10_000


def test_a_mistake_found_where_a_trial_runs_is_told_without_the_name_of_its_error():
    text = "Traceback\n  ...\nsearch_spaces.errors.UserError: the latency table is of another"
    assert reason_of(text) == "the latency table is of another"
