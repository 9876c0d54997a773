"""Signs of collapse: against formulas written out, and the Hessian as torch computes it."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from torch.func import functional_call, hessian
from torch.nn import functional as F

from sase_ray.strategies import SearchTask
from sase_ray.strategies.catalogue import make_strategy
from search_spaces.mixture import Mixture
from search_spaces.network import Supernet
from search_spaces.space import SearchSpace
from trainables.one_shot import trainable as supernet_module
from trainables.one_shot.collapse import (
    Sharpness,
    dominant_eigenvalue,
    mean_entropy,
    poor_operations,
    poor_share,
)
from trainables.one_shot.trainable import SupernetTrainable


def test_the_entropy_is_a_share_of_its_maximum():
    rows = {"a": [0.5, 0.25, 0.25], "b": [1.0, 0.0], "c": [1.0]}
    first = (0.5 * math.log(2) + 0.5 * math.log(4)) / math.log(3)
    assert mean_entropy(rows) == pytest.approx((first + 0) / 2)
    assert mean_entropy({"a": [0.25] * 4, "b": [1 / 3] * 3}) == pytest.approx(1)
    assert math.isnan(mean_entropy({"a": [1.0]}))


def test_the_poor_share_is_the_probability_of_poor_operations():
    rows = {"a": [0.5, 0.3, 0.2], "b": [0.9, 0.1]}
    flags = [[True, False, True], [False, True]]
    assert poor_share(rows, flags) == pytest.approx((0.7 + 0.1) / 2)
    assert poor_share({"a": [0.4, 0.6]}, [[True, True]]) == pytest.approx(1)


def test_poor_operations_have_a_tenth_of_the_parameters_at_most(make_job):
    job = make_job()
    poor = poor_operations(Supernet(job.network, job.space))
    by_name = dict(zip([v.name for v in job.space.variables], poor, strict=True))
    # Of squeezes gap and pnorm have none, gap_gmp and gap_std two scalars; cov convolutions.
    assert by_name["channel_squeeze"] == [True, True, False]
    assert by_name["spatial_squeeze"] == [True, True, False]
    # At 16 channels conv3 has 3 weights, fc 2 * 16 at least, affine 32; at 2 x 2 positions
    # conv3x3 has 9 weights, conv7x7 49, affine 8.
    assert by_name["channel_excite"][1:] == [False, False]
    assert by_name["spatial_excite"] == [False, False, False]


@pytest.mark.parametrize(
    "eigenvalues", [[5.0, 1.0, 0.5, 0.1], [-5.0, 1.0, 0.5, 0.1], [3.0, 0.0, 0.0, 0.0]]
)
def test_the_dominant_eigenvalue_of_a_quadratic(eigenvalues):
    torch.manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    matrix = basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.T
    first = torch.randn(3, dtype=torch.float64, requires_grad=True)
    second = torch.randn(1, dtype=torch.float64, requires_grad=True)

    def loss():
        x = torch.cat([first, second])
        return x @ matrix @ x / 2 + x.sum()

    start = torch.randn(4, dtype=torch.float64)
    value, vector = dominant_eigenvalue(loss, [first, second], start, iterations=60)
    every = torch.linalg.eigvalsh(matrix)
    assert value == pytest.approx(float(every[every.abs().argmax()]), rel=1e-6)
    assert float(vector.norm()) == pytest.approx(1)
    torch.testing.assert_close(matrix @ vector, value * vector, rtol=1e-4, atol=1e-4)
    assert first.grad is None


def test_a_flat_loss_has_the_eigenvalue_zero():
    x = torch.ones(3, requires_grad=True)
    value, vector = dominant_eigenvalue(lambda: (0 * x * x).sum(), [x], torch.ones(3))
    assert value == 0
    assert torch.isfinite(vector).all()


@pytest.mark.slow
def test_the_dominant_eigenvalue_of_a_supernet_equals_the_full_hessians(make_job):
    job = make_job()
    supernet = Supernet(job.network, job.space, seed=0).double().eval()
    torch.manual_seed(0)
    alphas = [torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(6)]
    images = job.data.train.images[:16].double() / 255
    labels = job.data.train.labels[:16]
    weights = {name: p.detach() for name, p in supernet.named_parameters()}

    def loss_of(flat):
        mixture = Mixture([F.softmax(row, 0) for row in flat.split(3)])
        return F.cross_entropy(functional_call(supernet, weights, (images, mixture)), labels)

    point = torch.cat([a.detach() for a in alphas])
    # By finite differences of the first derivative, which other tests hold against autograd.
    step = 1e-5
    rows = []
    for index in range(18):
        sides = []
        for sign in (1, -1):
            moved = point.clone()
            moved[index] += sign * step
            moved.requires_grad_()
            sides.append(torch.autograd.grad(loss_of(moved), moved)[0])
        rows.append((sides[0] - sides[1]) / (2 * step))
    differences = torch.stack(rows)
    full = hessian(loss_of)(point)
    torch.testing.assert_close(full, differences, rtol=1e-3, atol=1e-6)

    every = torch.linalg.eigvalsh((full + full.T) / 2)
    expected = float(every[every.abs().argmax()])
    value, _ = dominant_eigenvalue(
        lambda: loss_of(torch.cat(alphas)),
        alphas,
        torch.randn(18, dtype=torch.float64),
        iterations=200,
    )
    assert value == pytest.approx(expected, rel=1e-3)


def test_sharpness_is_told_from_the_rise_of_the_mean_of_three():
    """Stop where mean(before) / mean(now) < 0.75 (Zela et al., section 5.1)."""

    def first_stop(values):
        sharpness = Sharpness()
        stops = [i for i, value in enumerate(values) if sharpness.collapsed(value)]
        return stops[0] if stops else None

    assert first_stop([1.0] * 10) is None
    assert first_stop([1.0, 1.0, 1.0, 1.0, 1.0, 1.9]) is None  # 1 / 1.3 = 0.77
    assert first_stop([1.0, 1.0, 1.0, 1.0, 1.0, 2.1]) == 5  # 1 / 1.367 = 0.73
    assert first_stop([1.0, 1.0, 9.0, 9.0, 9.0]) is None, "six inspections are needed"
    assert first_stop([9.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5]) is None
    assert first_stop([-1.0] * 3 + [5.0] * 3) is None, "a ratio of signs tells nothing"
    assert first_stop([1.0] * 3 + [float("nan")] * 3) is None
    resumed = Sharpness([1.0, 1.0, 1.0, 1.0, 1.0])
    assert resumed.collapsed(2.1)


@pytest.fixture
def search(make_job, write_space):
    def make(job=None, budget=16 * 2 * 30, name="darts", **options):
        choices = {"channel_squeeze": ["gap", "gap_gmp"], "spatial_excite": ["conv3x3", "affine"]}
        job = job or make_job(SearchSpace.load(write_space(choices)))
        options = {"batch_size": 16, "alpha_lr": 0.05, **options}
        algorithm = make_strategy(name, options).algorithm(SearchTask(job, budget))

        class Bound(SupernetTrainable):
            def setup(self, config):
                super().setup(config, job=job, algorithm=deepcopy(algorithm), budget=budget)
                self.go_on()

        trainable = Bound(config={})
        results = [trainable.train()]
        while not results[-1]["done"]:
            results.append(trainable.train())
        return trainable, results

    return make


SIGNS = ("entropy", "poor_share", "dominant_eigenvalue", "discretisation_gap")


def test_a_search_is_inspected_ten_times(search):
    trainable, results = search()
    inspections = [result for result in results if "dominant_eigenvalue" in result]
    assert len(results) == len(inspections) == 10
    for result in inspections:
        assert all(math.isfinite(result[sign]) for sign in SIGNS)
        assert result["entropy"] == pytest.approx(mean_entropy(result["alpha"]))
    last = inspections[-1]
    alone = trainable._shared_weights().evaluate_genotype(
        trainable.job.space.parse(last["genotype"])
    )
    assert last["discretisation_gap"] == pytest.approx(alone.loss - last["val_loss"])


@pytest.mark.parametrize("name", ["darts", "adarts"])
def test_inspections_do_not_change_the_search(name, search, monkeypatch, assert_same):
    options = {"parts": 2, "warmup": 0.1} if name == "adarts" else {}
    watched, results = search(name=name, budget=16 * 2 * 12, **options)
    monkeypatch.setattr(supernet_module, "INSPECTIONS", 0)
    alone, unwatched = search(name=name, budget=16 * 2 * 12, **options)
    assert any("dominant_eigenvalue" in result for result in results)
    assert not any("dominant_eigenvalue" in result for result in unwatched)
    assert_same(watched.algorithm.state_dict(), alone.algorithm.state_dict())
    assert_same(dict(watched.supernet.state_dict()), dict(alone.supernet.state_dict()))
    for one, other in zip(results, unwatched, strict=True):
        for key in ("samples", "train_loss", "val_loss", "ranking"):
            assert one[key] == other[key]


def test_a_search_that_becomes_sharp_ends_with_the_ranking_of_three_inspections_before(
    search, monkeypatch
):
    values = iter([1.0, 1.0, 1.0, 1.0, 1.0, 1.1, 9.0, *[1.0] * 9])
    monkeypatch.setattr(
        supernet_module,
        "dominant_eigenvalue",
        lambda loss, parameters, vector: (next(values), vector),
    )
    trainable, results = search(stop_when_sharp=True, budget=1_920)
    assert len(results) == 7, "it stops at the inspection where the eigenvalue jumps"
    last = results[-1]
    assert last["done"]
    assert "sharp" in last["reason"]
    assert last["ranking"] == results[3]["ranking"] != results[5]["ranking"]
    assert last["genotype"] == results[3]["genotype"]
    assert last["samples"] < trainable.budget
    assert not last["diverged"]


def test_inspections_are_charged_where_they_can_end_the_search(search, monkeypatch):
    monkeypatch.setattr(
        supernet_module, "dominant_eigenvalue", lambda loss, parameters, vector: (1.0, vector)
    )
    trainable, results = search(stop_when_sharp=True, budget=1_920)
    batch, inspections = trainable.batch_size, 0
    for result in results:
        inspections += "dominant_eigenvalue" in result
        steps = min(result["epoch"] * len(trainable.train_batches), trainable.total_steps)
        # Two passes a step; a gradient and five products with the Hessian an inspection.
        assert result["samples"] == 2 * batch * steps + 6 * batch * inspections
    assert inspections > 3
    assert results[-1]["samples"] <= trainable.budget
    _, free = search()
    assert free[0]["samples"] == 2 * batch * len(trainable.train_batches)


def test_by_default_a_sharp_search_goes_on(search, monkeypatch):
    values = iter([1.0] * 5 + [100.0**i for i in range(9)])
    monkeypatch.setattr(
        supernet_module,
        "dominant_eigenvalue",
        lambda loss, parameters, vector: (next(values), vector),
    )
    _, results = search()
    assert len(results) == 10
    assert results[-1]["finished"]
