"""FBNet: Gumbel-softmax against integrals and limits, the latency in its loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit, softmax
from scipy.stats import chisquare

from sase_ray.strategies import SearchTask
from sase_ray.strategies.catalogue import make_strategy
from search_spaces.errors import UserError
from search_spaces.mixture import Mixture

TWO = {edge: ["gap", "gap_gmp"] for edge in ("channel_squeeze",)}


def set_alpha(algorithm, values):
    with torch.no_grad():
        for alpha in algorithm.alpha:
            alpha.data = torch.tensor(values[: len(alpha)], dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 5.0])
def test_the_mean_weight_and_its_gradient_equal_the_integral(
    temperature, start_algorithm, write_space
):
    """With two operations w_0 = sigmoid((a_0 - a_1 + L) / t), L logistic."""
    algorithm, _ = start_algorithm("fbnet", write_space(TWO))
    values = [0.4, -0.3]
    set_alpha(algorithm, values)
    algorithm.temperature = temperature
    count = 3000
    # Only one edge has two operations; any smooth function of its weights will do.
    weights = torch.stack([algorithm.mixture().edges[0] for _ in range(count)])
    measured = weights[:, 0].square()
    gradient = torch.autograd.grad(measured.mean(), algorithm.alpha[0])[0]

    difference = values[0] - values[1]

    def density(noise):
        return expit(noise) * expit(-noise)

    def weight(noise):
        return expit((difference + noise) / temperature)

    def slope(noise):
        w = weight(noise)
        return 2 * w * w * (1 - w) / temperature

    mean = quad(lambda n: weight(n) ** 2 * density(n), -40, 40)[0]
    slope_mean = quad(lambda n: slope(n) * density(n), -40, 40)[0]
    slope_square = quad(lambda n: slope(n) ** 2 * density(n), -40, 40)[0]
    error = float(measured.std()) / math.sqrt(count)
    assert float(measured.mean()) == pytest.approx(mean, abs=4 * error)
    slope_error = math.sqrt(max(slope_square - slope_mean**2, 0) / count)
    assert float(gradient[0]) == pytest.approx(slope_mean, abs=4 * slope_error)
    assert float(gradient[1]) == pytest.approx(-slope_mean, abs=4 * slope_error)


def test_at_a_low_temperature_operations_are_drawn_by_the_softmax_of_alpha(start_algorithm):
    algorithm, _ = start_algorithm("fbnet")
    values = [1.0, 0.0, -0.7]
    set_alpha(algorithm, values)
    algorithm.temperature = 1e-4
    count = 1500
    weights = torch.stack([algorithm.mixture().edges[0] for _ in range(count)]).detach()
    assert float((weights.max(dim=1).values > 0.999).double().mean()) > 0.99, "one-hot"
    frequencies = torch.bincount(weights.argmax(1), minlength=3).numpy()
    assert chisquare(frequencies, count * softmax(values)).pvalue > 1e-3


def test_edges_are_drawn_independently(start_algorithm):
    algorithm, _ = start_algorithm("fbnet")
    algorithm.temperature = 1e-4
    rows = np.array([[int(e.argmax()) for e in algorithm.mixture().edges[:2]] for _ in range(900)])
    table = np.histogram2d(*rows.T, bins=[[-0.5, 0.5, 1.5, 2.5]] * 2)[0]
    assert chisquare(table.flatten()).pvalue > 1e-3


def test_the_temperature_falls_as_in_the_paper(start_algorithm):
    """5 exp(-0.045 t) over 90 epochs (section 4.1)."""
    algorithm, _ = start_algorithm("fbnet")
    for epoch in (0, 1, 45, 90):
        algorithm.begin_step(epoch / 90)
        assert algorithm.temperature == pytest.approx(5 * math.exp(-0.045 * epoch))


def test_the_supernet_is_evaluated_with_the_probabilities(start_algorithm):
    algorithm, _ = start_algorithm("fbnet")
    set_alpha(algorithm, [1.0, 0.0, -0.7])
    for row in algorithm.central_mixture().edges:
        np.testing.assert_allclose(row.detach(), softmax([1.0, 0.0, -0.7]), rtol=1e-12)


def fixed_noise(algorithm, seed=3):
    algorithm.generator.manual_seed(seed)


def loss_by_hand(algorithm, values, batch, table):
    """CE * a * log(LAT)^b at given alpha (one row for all edges' values), noise fixed."""
    for alpha, row in zip(algorithm.alpha, values, strict=True):
        alpha.data = row.clone()
    fixed_noise(algorithm)
    mixture = algorithm.mixture()
    images, labels = batch
    with torch.no_grad():
        logits = algorithm.supernet(images, mixture)
        cross_entropy = -torch.log_softmax(logits, 1)[range(len(labels)), labels].mean()
    milliseconds = table.host
    for variable, weights in zip(algorithm.space.variables, mixture.edges, strict=True):
        for op, weight in zip(variable.choices, weights, strict=True):
            milliseconds += float(weight) * table.operations[variable.name][op]
    settings = algorithm.settings
    latency = math.log(1000 * milliseconds) ** settings.latency_power
    return float(cross_entropy) * settings.latency_factor * latency


@pytest.mark.parametrize(("factor", "power"), [(0.2, 0.6), (1.0, 2.0)])
def test_the_gradient_of_the_loss_with_latency_equals_finite_differences(
    factor, power, start_algorithm
):
    algorithm, (train, validation, *_) = start_algorithm(
        "fbnet", latency_factor=factor, latency_power=power
    )
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(3, generator=generator, dtype=torch.float64) for _ in algorithm.alpha]
    # Latencies that matter, whatever this machine measures.
    table = algorithm.latency = algorithm.latency.model_copy(
        update={
            "host": 0.05,
            "operations": {
                v.name: {op: 0.03 * (i + 1) ** 2 for i, op in enumerate(v.choices)}
                for v in algorithm.space.variables
            },
        }
    )
    for alpha, row in zip(algorithm.alpha, rows, strict=True):
        alpha.data = row.clone()
    fixed_noise(algorithm)
    gradients = algorithm.gradient(train, validation)
    step = 1e-5
    for edge in (0, 1, 5):
        for op in range(3):
            sides = []
            for sign in (1, -1):
                moved = [row.clone() for row in rows]
                moved[edge][op] += sign * step
                sides.append(loss_by_hand(algorithm, moved, validation, table))
            expected = (sides[0] - sides[1]) / (2 * step)
            assert float(gradients[edge][op]) == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_without_latency_the_gradient_is_that_of_the_cross_entropy(start_algorithm):
    algorithm, (train, validation, *_) = start_algorithm("fbnet", latency_power=0)
    assert algorithm.latency is None, "nothing is measured"
    fixed_noise(algorithm)
    ours = algorithm.gradient(train, validation)
    fixed_noise(algorithm)
    loss = algorithm.trainer.loss(validation)
    for one, other in zip(ours, torch.autograd.grad(loss, algorithm.alpha), strict=True):
        assert torch.equal(one, other)


def test_alpha_prefers_the_fast_operation_where_latency_is_all_that_differs(start_algorithm):
    algorithm, batches = start_algorithm("fbnet", latency_power=3.0, alpha_lr=0.1)
    operations = {
        v.name: dict(zip(v.choices, (5.0, 0.001, 5.0), strict=True))
        for v in algorithm.space.variables
    }
    algorithm.latency = algorithm.latency.model_copy(
        update={"operations": operations, "host": 0.002}
    )
    for _ in range(8):
        algorithm.architecture_step(batches[0], batches[1])
    assert all(int(alpha.argmax()) == 1 for alpha in algorithm.alpha)


def test_a_given_table_is_read_and_one_of_another_device_refused(
    make_job, latency_of, start_search, tmp_path
):
    job = make_job()
    table = latency_of(job)
    path = tmp_path / "table.json"
    table.model_copy(update={"host": 123.0}).save(path)
    trainable = start_search(job, "fbnet", 500, batch_size=16, latency_table=str(path))
    assert trainable.algorithm.latency.host == 123.0
    table.model_copy(update={"device": "another"}).save(path)
    with pytest.raises(UserError, match="another"):
        start_search(job, "fbnet", 500, batch_size=16, latency_table=str(path))
    with pytest.raises(UserError, match=r"nowhere\.json"):
        make_strategy("fbnet", {"latency_table": str(tmp_path / "nowhere.json")}).algorithm(
            SearchTask(job, 500)
        )


def test_a_table_of_another_network_is_refused_before_anything_starts(
    make_job, latency_of, tmp_path
):
    job, path = make_job(), tmp_path / "table.json"
    strategy = make_strategy("fbnet", {"batch_size": 16, "latency_table": str(path)})
    table = latency_of(job)
    table.model_copy(update={"device": "a GPU of the cluster"}).save(path)
    strategy.check(SearchTask(job, 500))
    table.model_copy(update={"network": "another"}).save(path)
    with pytest.raises(UserError, match="another network"):
        strategy.check(SearchTask(job, 500))


@pytest.mark.parametrize("options", [{"decay": 1000.0}, {"temperature": 1e-300}])
def test_however_cold_draws_and_gradients_stay_numbers(options, start_algorithm):
    algorithm, (_, validation, *_) = start_algorithm("fbnet", **options)
    for progress in (0.0, 0.5, 1.0):
        algorithm.begin_step(progress)
        gradient = algorithm.gradient(validation, validation)
        assert all(edge.isfinite().all() for edge in algorithm.drawn.edges)
        assert all(part.isfinite().all() for part in gradient)


def test_a_resumed_search_goes_on_with_the_latencies_it_began_with(
    make_job, latency_of, start_search, tmp_path
):
    job = make_job()
    first = start_search(job, "fbnet", 640, batch_size=16)
    first.train()
    first.save_checkpoint(str(tmp_path))
    slower = latency_of(job).model_copy(update={"host": 99.0})
    second = start_search(job, "fbnet", 640, batch_size=16)
    second.algorithm.latency = slower
    second.load_checkpoint(str(tmp_path))
    assert second.algorithm.latency == first.algorithm.latency


def test_the_weights_are_trained_on_draws_too(start_algorithm):
    algorithm, (train, *_) = start_algorithm("fbnet")
    seen = []
    forward = algorithm.supernet.forward
    algorithm.supernet.forward = lambda x, m: seen.append(m.edges[0].detach()) or forward(x, m)
    algorithm.trainer.step(train)
    algorithm.trainer.step(train)
    assert isinstance(algorithm.drawn, Mixture)
    assert not torch.equal(seen[0], seen[1])
