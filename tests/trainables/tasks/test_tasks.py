"""Tasks: losses and metrics against formulas, and every task through every training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from sase_ray.strategies import SearchTask
from sase_ray.strategies.catalogue import make_strategy
from search_spaces.errors import UserError
from trainables.data import (
    FinalData,
    ImageData,
    LabelledImages,
    SearchData,
    TargetImages,
    final_data,
    make_splits,
)
from trainables.final.training import FinalJob, train_final
from trainables.metrics import is_declared
from trainables.one_shot.trainable import SupernetTrainable
from trainables.proxy.trainable import ProxyTrainable
from trainables.search_job import SearchJob
from trainables.tasks.catalogue import make_task
from trainables.tasks.classification import Classification
from trainables.tasks.contract import Task
from trainables.tasks.distillation import Distillation, label_by
from trainables.tasks.registry import TASKS


def _start(trainable: type[Any], config: dict[str, str], **parts: Any) -> Any:
    """Start a trainable as a Tune worker does."""

    class Bound(trainable):
        def setup(self, config):
            super().setup(config, **parts)

    return Bound(config=config)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


@pytest.fixture
def final_view(digits: ImageData) -> FinalData:
    return final_data(digits, make_splits(digits, 0, 96, 60))


@pytest.fixture
def teacher(make_job: Callable[..., SearchJob]) -> nn.Module:
    network: nn.Module = make_job().network.with_baseline("se", seed=3)
    return network


def _measured(task: Task, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """Metrics of two uneven batches."""
    sums = [task.tally(outputs[part], targets[part]) for part in (slice(0, 5), slice(5, None))]
    return task.measure((sums[0] + sums[1]).tolist(), len(outputs))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_classification_is_cross_entropy_and_accuracy(smoothing: float) -> None:
    rng = np.random.default_rng(0)
    logits, classes = rng.normal(size=(12, 4)), rng.integers(4, size=12)
    outputs, targets = torch.tensor(logits), torch.tensor(classes)
    log_p = _log_softmax(logits)
    own = -log_p[np.arange(12), classes]
    expected = (1 - smoothing) * own.mean() - smoothing * log_p.mean()
    task = Classification()
    assert float(task.loss(outputs, targets, smoothing)) == pytest.approx(expected, rel=1e-12)
    right = (logits.argmax(1) == classes).mean()
    measured = _measured(task, outputs, targets)
    assert measured == pytest.approx({"loss": own.mean(), "accuracy": right}, rel=1e-12)
    assert float(task.reward(outputs, targets)) == pytest.approx(right)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("match", ["probabilities", "logits"])
def test_distillation_is_the_distance_to_the_teacher(match: str, temperature: float) -> None:
    rng = np.random.default_rng(1)
    logits, wanted = rng.normal(size=(12, 4)), rng.normal(3.0, 2.0, size=(12, 4))
    outputs, targets = torch.tensor(logits), torch.tensor(wanted)
    task = make_task("distillation", {"match": match, "temperature": temperature})
    error = ((logits - wanted) ** 2).mean()
    probabilities = np.exp(_log_softmax(wanted / temperature))
    entropy = -(probabilities * _log_softmax(logits / temperature)).sum(1).mean()
    # A constant that is added to all logits of an image changes no probability.
    own, its = (
        x if match == "logits" else x - x.mean(axis=1, keepdims=True) for x in (logits, wanted)
    )
    expected = {
        "loss": error if match == "logits" else entropy,
        "agreement": (logits.argmax(1) == wanted.argmax(1)).mean(),
        "normalised_error": ((own - its) ** 2).mean() / its.var(axis=0).mean(),
    }
    assert float(task.loss(outputs, targets)) == pytest.approx(expected["loss"], rel=1e-12)
    assert _measured(task, outputs, targets) == pytest.approx(expected, rel=1e-12)
    assert [metric.name for metric in task.metrics] == list(expected)
    reward = float(task.reward(outputs, targets))
    assert reward == pytest.approx(1 / (1 + expected["normalised_error"]), rel=1e-12)


def test_the_teacher_has_no_error_and_its_mean_an_error_of_one() -> None:
    targets = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) + 5
    task = Distillation()
    own = _measured(task, targets, targets)
    assert (own["normalised_error"], own["agreement"]) == (pytest.approx(0, abs=1e-12), 1.0)
    mean = _measured(task, targets.mean(0).expand_as(targets), targets)
    assert mean["normalised_error"] == pytest.approx(1, rel=1e-5)


def test_labels_of_a_teacher_are_its_logits(
    make_job: Callable[..., SearchJob], final_view: FinalData, teacher: nn.Module
) -> None:
    search = label_by(teacher, make_job().data)
    final = label_by(teacher, final_view)
    assert teacher.training  # put back
    teacher.eval()
    for view, part in ((search, search.validation), (search, search.train), (final, final.test)):
        assert isinstance(part, TargetImages)
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in
                     (view.normalisation.mean, view.normalisation.std))  # fmt: skip
        images = (part.images.float() / 255 - mean) / std
        with torch.no_grad():
            torch.testing.assert_close(part.targets, teacher(images), rtol=1e-4, atol=1e-4)
    assert not (search.augmentation.padding)
    assert not (search.augmentation.flip)
    assert torch.equal(search.train.labels, make_job().data.train.labels)
    part = search.train.select(torch.tensor([4, 2]))
    assert torch.equal(part.targets, search.train.targets[[4, 2]])


def test_targets_that_do_not_fit_are_refused(make_job: Callable[..., SearchJob]) -> None:
    part: LabelledImages = make_job().data.train
    for values in (torch.zeros(3, 10), torch.zeros(len(part)), torch.zeros(len(part), 2).long()):
        with pytest.raises(UserError, match="targets must be a floating point tensor"):
            TargetImages(part.images, part.labels, values)


@pytest.mark.parametrize(("value", "why"), [(1.0, "the same logits"), (float("nan"), "not finite")])
def test_a_teacher_that_teaches_nothing_is_refused(
    make_job: Callable[..., SearchJob], value: float, why: str
) -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x), 10), value)

    with pytest.raises(UserError, match=why):
        label_by(Constant(), make_job().data)


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("clasification", {}, ["unknown task", "'classification'"]),
        ("classification", {"temperature": 2}, ["unknown key 'temperature'"]),
        ("distillation", {"match": "loss"}, ["match", "probabilities"]),
        ("distillation", {"temperature": 0}, ["temperature", "greater than 0"]),
    ],
)
def test_wrong_tasks_are_told_in_a_sentence(
    name: str, options: dict[str, object], parts: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        make_task(name, options)
    assert all(part in str(error.value) for part in parts)


def test_a_data_set_serves_the_tasks_whose_targets_it_has() -> None:
    class Depth(Classification):
        target: ClassVar[str] = "depth map"

    Classification().check_dataset("digits")
    with pytest.raises(UserError, match=r"'digits' does not serve .* target 'depth map'.* class"):
        Depth().check_dataset("digits")
    with pytest.raises(UserError, match="did you mean 'digits'"):
        Classification().check_dataset("digit")


def _views(job: SearchJob, task: Task, final: FinalData) -> tuple[SearchData, FinalData]:
    return task.prepare(
        job.data, final, lambda module, seed: job.network.with_baseline(module, seed=seed)
    )


@pytest.mark.parametrize("name", TASKS)
def test_every_task_goes_through_every_training(
    name: str, make_job: Callable[..., SearchJob], final_view: FinalData
) -> None:
    """A proxy trial, a one-shot search and a final training report all metrics of the task."""
    task = make_task(name)
    assert task.metrics[0].name == "loss"
    assert all(is_declared(reported) for reported in task.reported("val"))
    assert task.metric(task.final).mode in ("min", "max")
    job = make_job(epochs=1)
    search, final = _views(job, task, final_view)
    job = replace(job, data=search, task=task)
    result = _start(ProxyTrainable, job.space.to_config(job.space[1]), job=job).train()
    assert not result["diverged"]
    assert all(np.isfinite(result[key]) for key in task.reported("val"))

    algorithm = make_strategy("enas").algorithm(SearchTask(job, 2000))
    result = _start(SupernetTrainable, {}, job=job, algorithm=algorithm, budget=2000).train()
    assert not result["diverged"]
    assert all(np.isfinite(result[key]) for key in task.reported("val"))

    protocol = job.protocol.model_copy(update={"epochs": 1})
    ended = train_final(FinalJob(job.network, job.space, "se", True, protocol, 0, task=task), final)
    assert not ended["diverged"]
    assert all(np.isfinite(ended[key]) for key in task.reported("test"))


def test_a_student_learns_its_teacher(
    make_job: Callable[..., SearchJob], final_view: FinalData
) -> None:
    """The teacher is a network with a known module: a few epochs come nearer to it."""
    task = Distillation(match="logits", teacher_epochs=3)
    job = make_job(epochs=12, train=400, lr=0.05)
    search, _ = _views(job, task, final_view)
    job = replace(job, data=search, task=task)
    trial = _start(ProxyTrainable, job.space.to_config(job.space[1]), job=job)
    errors = [trial.train()["val_normalised_error"] for _ in range(12)]
    assert errors[-1] < 0.5 * errors[0]
    assert errors[-1] < 0.8
