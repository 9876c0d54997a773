"""Planted modules: what a change of one edge costs, found by other means; determinism; storage."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from search_spaces.block import SASE
from search_spaces.errors import UserError
from search_spaces.genotype import Genotype
from search_spaces.network import Supernet
from search_spaces.space import SearchSpace
from search_spaces.super_block import SuperSASE
from trainables.data import Batches, TargetImages, final_data, make_splits, search_data
from trainables.persistence.store import Store
from trainables.planted import calibration, plant
from trainables.planted.draw import Draw, build_teacher
from trainables.planted.plant import PlantJob, make_plant
from trainables.planted.settings import PlantSettings
from trainables.training.frozen_host import HostJob, enter_host, train_frozen_host
from trainables.training.loop import Diverged, evaluate
from trainables.training.norm_statistics import estimate_statistics, statistics_batches
from trainables.training.protocol import HostProtocol, TrainingProtocol

SHARE = 0.002
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def views(digits):
    splits = make_splits(digits, seed=0, train_size=256, validation_size=128)
    return search_data(digits, splits), final_data(digits, splits)


@pytest.fixture(scope="module")
def host(views, make_job):
    protocol = HostProtocol(epochs=8, batch_size=32, lr=0.1, label_smoothing=0.1)
    return train_frozen_host(HostJob(make_job().network, views[0], views[0], protocol))


@pytest.fixture
def job(views, make_job, write_space) -> PlantJob:
    """A space of three edges with two operations each, none of which contains the other."""
    space = SearchSpace.load(
        write_space(
            {
                "channel_squeeze": ["gap", "pnorm"],
                "channel_excite": ["fc", "affine"],
                "spatial_excite": ["conv3x3", "affine"],
            }
        )
    )
    protocol = TrainingProtocol(epochs=4, batch_size=32, optimizer="adamw", lr=0.01, weight_decay=0)
    settings = PlantSettings(share=SHARE)
    network = make_job().network
    return PlantJob(network, space, *views, protocol, protocol, settings, number=1)


def _set_statistics(model: nn.Module, job: PlantJob, data) -> None:
    estimate_statistics(model, statistics_batches(data, job.proxy, CPU), job.proxy, CPU)


def _imitate(model: nn.Module, part: TargetImages, normalisation, steps: int) -> float:
    """Train by plain full-batch Adam; return the least error over the variance."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in
                 (normalisation.mean, normalisation.std))  # fmt: skip
    images = (part.images.float() / 255 - mean) / std
    variance = part.values.var(0, unbiased=False).sum()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(weights, 0.02)
    least = float("inf")
    for _ in range(steps):
        error = (model(images) - part.values).square().sum(1).mean() / variance
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        least = min(least, float(error.detach()))
    return least


@pytest.mark.slow
def test_every_change_of_one_edge_costs_at_least_the_share(job: PlantJob, host) -> None:
    made = make_plant(job, host)
    assert made.draws >= 1
    assert set(made.costs) == {"channel_squeeze", "channel_excite", "spatial_excite"}
    assert min(made.costs.values()) >= SHARE
    labelled = made.label_search(job.search)
    errors = {}
    for genotype in [made.genotype, *job.space.neighbours(made.genotype)]:
        model = job.network.with_genotype(genotype, seed=5)
        enter_host(model, made.in_host(host))
        _set_statistics(model, job, labelled)
        errors[genotype] = _imitate(model.eval(), labelled.train, job.search.normalisation, 150)
    own = errors.pop(made.genotype)
    # By another, longer training, on the images that it is trained on, each change still costs.
    assert len(errors) == 3
    assert own < 1e-6
    assert all(error > SHARE / 2 for error in errors.values()), errors


def test_the_same_number_plants_the_same(job: PlantJob, host) -> None:
    job = replace(job, settings=PlantSettings(share=0))
    first, again = make_plant(job, host), make_plant(job, host)
    assert first.text == again.text
    assert all(torch.equal(first.logits[name], again.logits[name]) for name in first.logits)
    other = make_plant(replace(job, number=2), host)
    assert not torch.equal(first.logits["final.test"], other.logits["final.test"])
    assert first.costs == {}


def test_a_search_does_not_begin_with_its_plant(job: PlantJob, host) -> None:
    space = SearchSpace.load("sase_tiny")
    job = replace(job, space=space, settings=PlantSettings(share=0))
    for number in range(2):
        planted = make_plant(replace(job, number=number), host).genotype
        assert planted != space.sample(random.Random(number))


def test_labels_are_the_logits_of_the_plants_network(job: PlantJob, host) -> None:
    made = make_plant(replace(job, settings=PlantSettings(share=0)), host)
    search, final = made.label_search(job.search), made.label_final(job.final)
    for view, parts in ((search, ("train", "validation")), (final, ("train", "test"))):
        assert not view.augmentation.padding
        for name in parts:
            part = getattr(view, name)
            assert len(part.values) == len(part.images)
            assert part.values.isfinite().all()
    # The same image has about the same target in both views, whose statistics differ a little.
    where = {image.numpy().tobytes(): i for i, image in enumerate(final.train.images)}
    places = [where[image.numpy().tobytes()] for image in search.train.images]
    difference = (final.train.values[places] - search.train.values).square().sum()
    assert difference < 0.05 * search.train.values.var(0).sum() * len(places)


def test_a_kept_plant_is_not_drawn_again(
    job: PlantJob, host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(job, settings=PlantSettings(share=0))
    first = make_plant(job, host, Store(tmp_path))
    monkeypatch.setattr(plant, "Draw", None)
    again = make_plant(job, host, Store(tmp_path))
    assert first.text == again.text
    assert torch.equal(first.logits["search.train"], again.logits["search.train"])


def test_a_plant_that_cannot_be_calibrated_is_refused(job: PlantJob, host, monkeypatch) -> None:
    monkeypatch.setattr(Draw, "run", lambda self, steps=0: 0.0)
    monkeypatch.setattr(plant, "costs_of_changes", lambda *a, **b: iter([("x", None, 0.4)]))
    job = replace(job, settings=PlantSettings(share=0.5, draws=3))
    with pytest.raises(UserError, match=r"none of 3 plants .* planted.share 0.5: choose a smaller"):
        make_plant(job, host)


def test_a_student_that_diverges_does_not_make_a_change_expensive(
    job: PlantJob, host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*given: object) -> float:
        raise Diverged("training loss rose to 1e9")

    monkeypatch.setattr(calibration, "train_epoch", diverge)
    job = replace(job, settings=PlantSettings(share=SHARE, draws=1))
    with pytest.raises(UserError, match="could be calibrated"):
        make_plant(job, host)


def test_an_edge_is_as_important_as_its_mean_changes_the_logits(
    make_job: Callable[..., object], views, host
) -> None:
    network, space = make_job().network, SearchSpace.load("sase_tiny")
    genotype = Genotype.parse("gap_gmp-fc-affine-pnorm-gap-conv7x7")
    teacher = build_teacher(network, genotype)
    enter_host(teacher, host)
    images = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    draw = Draw(teacher, space, images, 1e9, torch.Generator().manual_seed(4))
    draw.run(steps=3)
    with torch.no_grad():
        plain = teacher(images)
        for edge in ("channel_excite", "refine_excite", "spatial_excite"):
            # An excitation is called as a module, so that a hook can average it.
            handles = [
                block.edges[edge].register_forward_hook(
                    lambda module, given, out: out.mean(0, keepdim=True).expand_as(out)
                )
                for block in draw.blocks
            ]
            changed = teacher(images)
            for handle in handles:
                handle.remove()
            expected = (changed - plain).square().mean() / plain.var(0, unbiased=False).mean()
            assert draw.importance(edge, None, plain) == pytest.approx(float(expected), rel=1e-4)
        assert torch.equal(teacher(images), plain)


@pytest.mark.parametrize("wrong", [{"share": 1.0}, {"share": -0.1}, {"draws": 0}, {"seed": -1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PlantSettings(**wrong)


def _first_block(model: nn.Module) -> nn.Module:
    return next(module for module in model.modules() if isinstance(module, SASE | SuperSASE))


def test_students_and_supernets_begin_with_what_they_share_with_the_plant(job, host) -> None:
    made = make_plant(replace(job, settings=PlantSettings(share=0)), host)
    told = made.in_host(host)
    search = made.label_search(job.search)
    student = job.network.with_genotype(made.genotype, seed=9)
    enter_host(student, told)
    protocol = job.proxy
    images = Batches(search.validation, 64, search.normalisation)
    statistics = statistics_batches(search, protocol, CPU)
    estimate_statistics(student, statistics, protocol, CPU)
    error = evaluate(student, images, protocol, CPU, calibration.IMITATION)["normalised_error"]
    assert error < 1e-8
    supernet = Supernet(job.network, job.space, seed=9)
    enter_host(supernet.host, told)
    extracted = supernet.extract(made.genotype)
    estimate_statistics(extracted, statistics, protocol, CPU)
    error = evaluate(extracted, images, protocol, CPU, calibration.IMITATION)["normalised_error"]
    assert error < 1e-8
    # Another operation begins at random, as without a plant.
    other = job.space.neighbours(made.genotype)[0]
    known, plain = (job.network.with_genotype(other, seed=9) for _ in range(2))
    enter_host(known, told)
    enter_host(plain, host)
    (changed,) = [edge for edge, op in other.edges().items() if op != made.genotype.edges()[edge]]
    for name, value in _first_block(plain).edges[changed].state_dict().items():
        assert torch.equal(value, _first_block(known).edges[changed].state_dict()[name])
    assert not torch.equal(
        _first_block(plain).join.conv.weight, _first_block(known).join.conv.weight
    )


def test_nothing_is_given_where_that_is_asked_for(job, host) -> None:
    made = make_plant(replace(job, settings=PlantSettings(share=0, given=False)), host)
    assert made.in_host(host) is host
