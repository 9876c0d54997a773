"""A host of another data set: what is kept of it, and its new classifier where classes differ."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sase_ray.strategies.catalogue import make_strategy
from sase_ray.strategies.contract import SearchTask
from search_spaces.errors import UserError
from search_spaces.network import NetworkSpec
from trainables.data import Batches, final_data, make_splits, search_data
from trainables.data.fit import fit_data
from trainables.final.training import FinalJob, train_final
from trainables.one_shot.trainable import SupernetTrainable
from trainables.proxy.trainable import ProxyTrainable
from trainables.training.frozen_host import HostJob, enter_host, train_frozen_host
from trainables.training.loop import evaluate
from trainables.training.protocol import HostProtocol, TrainingProtocol

GENOTYPE = "gap_gmp-fc-affine-pnorm-gap-conv3x3"
CLASSIFIER = {"fc.weight", "fc.bias"}


def is_statistic(name):
    return "running" in name or "tracked" in name


@pytest.fixture(scope="module")
def parities(digits):
    """The digits, to be told by what remains of them divided by 4."""
    return replace(digits, labels=digits.labels % 4, class_names=("0", "1", "2", "3"), name="rest")


def view(data):
    return search_data(data, make_splits(data, seed=0, train_size=96, validation_size=60))


@pytest.fixture(scope="module")
def protocol():
    return HostProtocol(epochs=3, batch_size=32, lr=0.1)


@pytest.fixture(scope="module")
def job(make_job, digits, parities, protocol):
    network = replace(make_job().network, num_classes=4)
    return HostJob(network, view(digits), view(parities), protocol)


@pytest.fixture(scope="module")
def host(job):
    job.check({}, 1)
    return train_frozen_host(job)


@pytest.fixture(scope="module")
def plain(job, host):
    """The host as it was trained on the source, for the source."""
    network = replace(job.network, num_classes=10)
    return train_frozen_host(replace(job, network=network, shifted=job.data))


def changed(before, after):
    """Names of the host's parameters that differ."""
    return {
        name
        for name, value in before.items()
        if not is_statistic(name) and not torch.equal(value, after[name])
    }


def test_all_but_the_classifier_is_that_of_the_source(job, host, plain):
    for name, value in plain.state.items():
        if name not in CLASSIFIER:
            assert torch.equal(value, host.state[name]) or is_statistic(name), name
    assert set(host.classifier) == CLASSIFIER
    assert host.state["fc.weight"].shape == (4, plain.state["fc.weight"].shape[1])
    assert host.samples == 2 * 3 * 96
    assert host.accuracy == plain.accuracy  # on the source's validation images
    assert plain.classifier == ()


def test_the_new_classifier_has_learnt_the_new_classes(job, host):
    model = job.network.build()
    enter_host(model, host)
    batches = Batches(job.shifted.train, 96, job.shifted.normalisation)
    cpu = torch.device("cpu")
    learnt = evaluate(model, batches, job.protocol, cpu).loss
    torch.manual_seed(job.protocol.seed)
    model.fc.reset_parameters()
    assert learnt < evaluate(model, batches, job.protocol, cpu).loss
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == CLASSIFIER


def test_trials_train_it_with_the_modules(make_job, job, host, start):
    search = replace(make_job(), network=job.network, data=job.shifted, host=host, host_job=job)
    trial = start(ProxyTrainable, search.space.to_config(search.space.parse(GENOTYPE)), job=search)
    trial.train()
    assert changed(host.state, trial.candidates[0].model.state_dict()) == CLASSIFIER


def test_supernets_train_it_with_the_modules(make_job, job, host, start):
    search = replace(make_job(), network=job.network, data=job.shifted, host=host, host_job=job)
    plan = make_strategy("darts", {"batch_size": 16}).plan(SearchTask(search, 800))
    supernet = start(SupernetTrainable, {}, **plan.parameters)
    assert not supernet.train()["diverged"]
    assert changed(host.state, supernet.supernet.host.state_dict()) == CLASSIFIER


@pytest.mark.parametrize("module", ["none", "se", "ge", GENOTYPE])
def test_final_trainings_and_baselines_train_it_alike(make_job, job, host, parities, module):
    from trainables.final import training

    models = []
    final = FinalJob(
        network=job.network,
        space=make_job().space,
        module=module,
        baseline=module != GENOTYPE,
        protocol=TrainingProtocol(epochs=1, batch_size=16),
        seed=10_000,
        host=host,
    )
    original = training.place
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            training, "place", lambda model, *a: models.append(model) or original(model, *a)
        )
        splits = make_splits(parities, seed=0, train_size=96, validation_size=60)
        assert not train_final(final, final_data(parities, splits))["diverged"]
    assert changed(host.state, models[0].state_dict()) == CLASSIFIER


def test_as_many_classes_keep_the_classifier_unless_it_is_to_be_new(job, digits, plain):
    network = replace(job.network, num_classes=10)
    inverted = replace(digits, images=255 - digits.images)
    same = replace(job, network=network, shifted=view(inverted))
    kept = train_frozen_host(same)
    assert changed(plain.state, kept.state) == set()
    assert kept.classifier == ()
    new = train_frozen_host(
        replace(same, protocol=job.protocol.model_copy(update={"classifier": "new"}))
    )
    assert changed(plain.state, new.state) == CLASSIFIER
    assert set(new.classifier) == CLASSIFIER


def test_weights_from_a_file_may_have_other_classes(job, plain, tmp_path):
    torch.save(dict(plain.state), tmp_path / "host.pt")
    update = {"weights": str(tmp_path / "host.pt")}
    own = replace(job, data=job.shifted, protocol=job.protocol.model_copy(update=update))
    with pytest.raises(UserError, match=r"fc\.weight is \(10, 16\), expected \(4, 16\)"):
        own.check({}, 1)
    new = replace(own, protocol=own.protocol.model_copy(update={"classifier": "new"}))
    new.check({}, 1)
    host = train_frozen_host(new)
    assert host.samples == 3 * 96
    assert host.accuracy is None
    for name in plain.state.keys() - CLASSIFIER:
        assert torch.equal(plain.state[name], host.state[name]) or is_statistic(name), name
    # Of a source with as many classes as the file, the file's classifier is measured there.
    source = replace(job, protocol=own.protocol)
    source.check({}, 1)
    assert train_frozen_host(source).accuracy is not None


def test_what_does_not_fit_is_named(job, digits, protocol):
    large = replace(job, shifted=view(fit_data(digits, 3, 12)))
    with pytest.raises(UserError, match=r"'digits' are 1x8x8, those of 'digits' 3x12x12"):
        large.check({}, 1)
    kept = protocol.model_copy(update={"classifier": "kept"})
    with pytest.raises(UserError, match="'digits' has 10 classes and 'rest' 4"):
        replace(job, protocol=kept).check({}, 1)
    pretrained = kept.model_copy(update={"weights": "pretrained"})
    alike = replace(job, shifted=job.data, network=replace(job.network, num_classes=10))
    with pytest.raises(UserError, match="loads no classifier of 10 classes"):
        replace(alike, protocol=pretrained).check({"weights": "DEFAULT"}, 1)
    nowhere = NetworkSpec("file:nowhere.pt", 10, 1, (8, 8), {"sha256": ""})
    with pytest.raises(UserError, match="cannot be read"):
        replace(alike, network=nowhere, protocol=pretrained).check({}, 1)
