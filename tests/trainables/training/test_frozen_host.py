"""A frozen host: its weights never move, its statistics follow the network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sase_ray.strategies.catalogue import make_strategy
from sase_ray.strategies.contract import SearchTask
from search_spaces.errors import UserError
from trainables.data import (
    Batches,
    Shift,
    final_data,
    make_splits,
    search_data,
    shift_data,
)
from trainables.final.training import FinalJob, train_final
from trainables.one_shot.trainable import SupernetTrainable
from trainables.proxy.trainable import ProxyTrainable
from trainables.proxy.warm_host import train_host
from trainables.training.frozen_host import (
    HostJob,
    TrainedHost,
    enter_host,
    train_frozen_host,
)
from trainables.training.loop import Diverged, evaluate
from trainables.training.norm_statistics import estimate_statistics, statistics_batches
from trainables.training.protocol import HostProtocol, TrainingProtocol

GENOTYPE = "gap_gmp-fc-affine-pnorm-gap-conv3x3"
CPU = torch.device("cpu")
SHIFT = Shift(kinds=["contrast", "noise"])


@pytest.fixture(scope="module")
def shifted(digits):
    return shift_data(digits, SHIFT)


@pytest.fixture(scope="module")
def host_job(make_job, digits, shifted):
    splits = make_splits(digits, seed=0, train_size=96, validation_size=60)
    protocol = HostProtocol(epochs=3, batch_size=32, lr=0.1)
    clean, after = search_data(digits, splits), search_data(shifted, splits)
    return HostJob(make_job().network, clean, after, protocol)


@pytest.fixture(scope="module")
def host(host_job):
    return train_frozen_host(host_job)


@pytest.fixture
def job(make_job, host_job, host):
    return replace(make_job(averaging=0.8), data=host_job.shifted, host=host, host_job=host_job)


def is_statistic(name):
    return "running" in name or "tracked" in name


def assert_kept(host, model):
    """Parameters of the host are bit for bit what they were."""
    state = model.state_dict()
    for name, value in host.state.items():
        assert is_statistic(name) or torch.equal(state[name], value), name


def test_a_host_is_trained_before_the_shift_and_measured_there(host, host_job, make_job):
    warm = make_job(warm_host={"epochs": 3, "batch_size": 32, "lr": 0.1})
    plain = train_host(replace(warm, data=host_job.data))
    for name, value in plain.state.items():
        if not is_statistic(name):
            assert torch.equal(host.state[name], value), name
    assert host.samples == 3 * 96
    model = host_job.network.build()
    model.load_state_dict(dict(plain.state))
    validation = Batches(host_job.data.validation, 512, host_job.data.normalisation)
    assert host.accuracy == evaluate(model, validation, host_job.protocol, CPU)["accuracy"]


def test_statistics_are_those_of_the_shifted_training_images(host, host_job):
    model = host_job.network.build()
    model.load_state_dict(dict(host.state))
    name, norm = next(
        (n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)
    )
    seen = []
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    data = host_job.shifted
    mean = torch.tensor(data.normalisation.mean).view(-1, 1, 1)
    std = torch.tensor(data.normalisation.std).view(-1, 1, 1)
    model.eval()
    model((data.train.images / 255 - mean) / std)
    (maps,) = seen
    expected = maps.transpose(0, 1).flatten(1)
    torch.testing.assert_close(
        host.state[f"{name}.running_mean"], expected.mean(1), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        host.state[f"{name}.running_var"], expected.var(1), rtol=1e-4, atol=0
    )


def test_a_proxy_trial_moves_attention_alone(job, host, start):
    trial = start(ProxyTrainable, job.space.to_config(job.space.parse(GENOTYPE)), job=job)
    before = {n: v.clone() for n, v in trial.candidates[0].model.state_dict().items()}
    for _ in range(2):
        trial.train()
    for model in (trial.candidates[0].model, trial.candidates[0].evaluated_model):
        assert_kept(host, model)
    after = trial.candidates[0].model.state_dict()
    own = [n for n in after if n not in host.state and "tracked" not in n]
    assert any(not torch.equal(after[name], before[name]) for name in own)


@pytest.mark.parametrize("name", ["darts-2nd", "rf-darts", "rsws"])
def test_a_supernet_moves_attention_alone(job, host, name, start):
    task = SearchTask(job, 800)
    strategy = make_strategy(name, {"batch_size": 16})
    assert strategy.wants_host(task)
    plan = strategy.plan(task)
    assert plan.samples_before == 0
    search = start(SupernetTrainable, {}, **plan.parameters)
    before = {n: v.clone() for n, v in search.supernet.state_dict().items()}
    result = search.train()
    while not result["done"]:
        result = search.train()
    assert not result["diverged"]
    assert_kept(host, search.supernet.host)
    after = search.supernet.state_dict()
    assert any(not torch.equal(after[n], v) for n, v in before.items() if ".block." in n)


def make_final(job, module, **more):
    return FinalJob(
        network=job.network,
        space=job.space,
        module=module,
        baseline=module != GENOTYPE,
        protocol=TrainingProtocol(epochs=2, batch_size=16),
        seed=10_000,
        **more,
    )


def trained_parts(job, host, module, shifted):
    """Train finally; return the names of the host's parameters that moved."""
    from trainables.final import training

    models = []
    original = training.place

    def watched(model, *arguments):
        models.append(model)
        return original(model, *arguments)

    splits = make_splits(shifted, seed=0, train_size=96, validation_size=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "place", watched)
        result = train_final(make_final(job, module, host=host), final_data(shifted, splits))
    assert not result["diverged"]
    state = models[0].state_dict()
    return {
        name
        for name, value in host.state.items()
        if not is_statistic(name) and not torch.equal(state[name], value)
    }


def test_final_training_keeps_the_host_but_for_what_a_baseline_tunes(job, host, shifted):
    for module in ("none", "se", GENOTYPE):
        assert not trained_parts(job, host, module, shifted)
    norms = {
        f"{name}.{kind}"
        for name, module in job.network.build().named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for kind in ("weight", "bias")
    }
    assert trained_parts(job, host, "bn", shifted) == norms
    moved = trained_parts(job, host, "full", shifted)
    parameters = {name for name, _ in job.network.build().named_parameters()}
    assert parameters <= moved
    everything = replace(host, frozen=False)
    assert trained_parts(job, everything, "none", shifted) >= parameters


def test_a_network_of_which_nothing_is_trained_is_the_same_after_any_number_of_epochs(
    job, host, shifted
):
    data = final_data(shifted, make_splits(shifted, seed=0, train_size=96, validation_size=60))
    results = []
    for epochs in (1, 5):
        protocol = TrainingProtocol(epochs=epochs, batch_size=16)
        result = train_final(replace(make_final(job, "none", host=host), protocol=protocol), data)
        result.pop("train_seconds")
        results.append(result)
    assert results[0] == results[1]
    assert results[0]["samples"] == len(data.train) // 16 * 16


@pytest.mark.parametrize("attention", [None, GENOTYPE])
def test_statistics_are_those_of_the_network_with_its_module(job, host, attention):
    """Running statistics equal mean and variance of a norm's inputs over all training images."""
    data, protocol = job.data, job.protocol.model_copy(update={"batch_size": 96})

    def network():
        model = job.network.with_genotype(attention) if attention else job.network.build()
        enter_host(model, host)
        return model, [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)][-1]

    model, norm = network()
    estimate_statistics(model, statistics_batches(data, protocol, CPU), protocol, CPU)
    other, last = network()
    seen = []
    last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    mean = torch.tensor(data.normalisation.mean).view(-1, 1, 1)
    std = torch.tensor(data.normalisation.std).view(-1, 1, 1)
    other.train()((data.train.images / 255 - mean) / std)
    maps = seen[0].transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean, maps.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, maps.var(1), rtol=1e-4, atol=1e-6)


def test_weights_come_from_a_file(host_job, host, tmp_path):
    path = tmp_path / "host.pt"
    torch.save(dict(host.state), path)
    protocol = host_job.protocol.model_copy(update={"weights": str(path)})
    loaded = train_frozen_host(replace(host_job, protocol=protocol))
    assert loaded.samples == 0
    for name, value in host.state.items():
        if not is_statistic(name):
            assert torch.equal(loaded.state[name], value), name


def test_pretrained_weights_get_a_classifier_alone(host_job):
    protocol = host_job.protocol.model_copy(update={"weights": "pretrained"})
    job = replace(host_job, protocol=protocol)
    trained = train_frozen_host(job)
    start = job.network.build(seed=protocol.seed)
    moved = {n for n, p in start.named_parameters() if not torch.equal(p, trained.state[n])}
    last = [n for n, m in start.named_modules() if isinstance(m, torch.nn.Linear)][-1]
    assert moved == {f"{last}.weight", f"{last}.bias"}


def test_mistakes_are_named(host_job, host, tmp_path):
    def with_weights(weights):
        protocol = host_job.protocol.model_copy(update={"weights": str(weights)})
        return replace(host_job, protocol=protocol)

    with pytest.raises(UserError, match="is no file"):
        with_weights(tmp_path / "none.pt").check({}, 1)
    garbage = tmp_path / "garbage.pt"
    garbage.write_bytes(b"nothing")
    with pytest.raises(UserError, match="is no state dict"):
        with_weights(garbage).check({}, 1)
    state = dict(host.state)
    state.pop(min(state))
    torch.save(state, tmp_path / "part.pt")
    with pytest.raises(UserError, match="another network than backbone 'resnet8'"):
        with_weights(tmp_path / "part.pt").check({}, 1)
    with pytest.raises(UserError, match=r"backbone\.options load no weights"):
        with_weights("pretrained").check({}, 1)
    with_weights("pretrained").check({"weights": "DEFAULT"}, 1)
    with pytest.raises(UserError, match=r"final\.workers is 2"):
        host_job.check({}, 2)
    with pytest.raises(ValueError, match=r"another network: it has 'layer9\.weight'"):
        enter_host(host_job.network.build(), TrainedHost({"layer9.weight": torch.zeros(1)}, 1, 1.0))
    lost = host_job.protocol.model_copy(update={"lr": 1e30, "clip": None})
    with pytest.raises(Diverged):
        train_frozen_host(replace(host_job, protocol=lost))
