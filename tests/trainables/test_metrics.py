"""Reported numbers: one declaration gives direction, format, and a place in every history."""

from __future__ import annotations

import math
from typing import Literal

import pytest

from sase_ray.results.history import History
from search_spaces.errors import UserError
from trainables import metrics
from trainables.metrics import Metric, declare, find_metric, is_declared, recorded, undeclared


@pytest.fixture(autouse=True)
def _own_declarations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_DECLARED", dict(metrics._DECLARED))


@pytest.mark.parametrize(
    ("reported", "name", "mode", "shown"),
    [
        ("val_loss", "loss", "min", "0.5000"),
        ("test_loss", "loss", "min", "0.5000"),
        ("train_loss", "loss", "min", "0.5000"),
        ("last_val_loss_sd", "loss", "min", "0.5000"),
        ("val_accuracy", "accuracy", "max", "50.00"),
        ("test_accuracy_sd", "accuracy", "max", "50.00"),
    ],
)
def test_a_reported_name_leads_to_its_metric(
    reported: str, name: str, mode: str, shown: str
) -> None:
    metric = find_metric(reported)
    assert (metric.name, metric.mode, metric.show(0.5)) == (name, mode, shown)
    assert metric.sign == {"min": 1, "max": -1}[mode]


def test_a_difference_is_shown_with_its_unit_and_told_as_better_or_worse() -> None:
    accuracy, loss = find_metric("accuracy"), find_metric("loss")
    assert (accuracy.show_difference(0.012), loss.show_difference(-0.5)) == ("+1.20", "-0.5000")
    assert (accuracy.size(-0.012), loss.size(0.5)) == ("1.20 points", "0.5000 nats")
    assert (accuracy.tell(0.5), loss.tell(0.5)) == ("50.00%", "0.5000 nats")
    assert accuracy.tell_difference(0.012) == "+1.20 points to"
    assert (accuracy.is_better(0.01), loss.is_better(0.01)) == (True, False)
    assert accuracy.compared([0.5, 2.0]).tolist() == [0.5, 2.0]
    assert accuracy.restored(0.5) == 0.5
    assert (accuracy.hint, loss.hint) == ("", " (lower is better)")


@pytest.mark.parametrize("mode", ["min", "max"])
def test_ratios_are_logarithms_where_they_are_averaged(mode: Literal["min", "max"]) -> None:
    metric = Metric("spread", mode, format=".3g", ratio=True)
    one, other = metric.compared([0.02, 0.1])
    assert one - other == pytest.approx(math.log(0.2))
    assert metric.restored((one + other) / 2) == pytest.approx((0.02 * 0.1) ** 0.5)
    ratio = metric.restored(one - other)
    assert metric.show_difference(ratio) == "×0.2"
    assert metric.size(ratio) == metric.size(1 / ratio) == "a factor of 5"
    assert metric.tell_difference(ratio) == "0.2 times that of"
    assert metric.is_better(ratio) == (mode == "min")
    assert metric.is_better(1 / ratio) == (mode == "max")
    assert math.isfinite(metric.compared(0.0))
    assert metric.restored(1e6) < math.inf


def test_a_lost_training_is_worse_than_any_other() -> None:
    assert find_metric("val_loss").when_lost == math.inf
    assert find_metric("val_accuracy").when_lost == 0.0
    assert Metric("correlation", "max").when_lost == -math.inf


def test_a_diagnostic_has_no_direction() -> None:
    with pytest.raises(UserError, match="'entropy' is a diagnostic"):
        _ = Metric("entropy", None).sign


def test_an_unknown_metric_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match="unknown metric 'acuracy': did you mean 'accuracy'"):
        find_metric("val_acuracy")


def test_a_name_is_declared_once() -> None:
    declare(Metric("loss", "min", "nats", label="cross-entropy"))  # the same again
    with pytest.raises(UserError, match="'loss' is already declared"):
        declare(Metric("loss", "max"))
    with pytest.raises(UserError, match="'samples' is already declared"):
        declare(Metric("samples", "min"))


def test_a_declared_number_is_kept_and_another_is_found() -> None:
    result = {"val_loss": 1.0, "sharpness": 2.0, "val_sharpness_sd": 0.1, "epoch": 1, "done": True}
    assert recorded(result) == {"val_loss": 1.0, "epoch": 1}
    assert undeclared(result) == ["sharpness", "val_sharpness_sd"]
    declare(Metric("sharpness", "min"))
    assert is_declared("last_val_sharpness_sd")
    assert recorded(result) == {key: result[key] for key in result if key != "done"}
    assert undeclared(result) == []


def test_a_history_needs_no_loss_and_no_accuracy() -> None:
    declare(Metric("sharpness", "max"))
    history = History("sharpness", "max")
    common = {"epoch": 1, "samples": 10, "train_seconds": 1.0, "diverged": False, "reason": ""}
    history.add("0", {"genotype": "a-b-c-d-e-f", "sharpness": 1.0, **common})
    last = history.add("1", {"genotype": "b-b-c-d-e-f", "sharpness": 3.0, **common})
    assert (last["incumbent"], last["incumbent_sharpness"]) == ("b-b-c-d-e-f", 3.0)
    assert [score for _, score in history.ranked_trials()] == [3.0, 1.0]
    assert [row["sharpness"] for row in history.trials()] == [1.0, 3.0]
    assert not any("loss" in key or "accuracy" in key for key in last)
