"""Candidates in a host that was trained without attention, judged by averaged weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from trainables.data import Batches
from trainables.proxy.instrumented import StudiedTrainable
from trainables.proxy.trainable import ProxyTrainable
from trainables.proxy.warm_host import train_host
from trainables.training.frozen_host import TrainedHost
from trainables.training.loop import Diverged, Trainer, evaluate, train_epoch
from trainables.training.protocol import TrainingProtocol

FIRST = "gap_gmp-fc-affine-pnorm-gap-conv3x3"
SECOND = "cov-conv3-affine-gap_std-pnorm-conv7x7"
CPU = torch.device("cpu")


def start(job, genotype=FIRST, kind=ProxyTrainable, **extra):
    class Bound(kind):
        def setup(self, config):
            super().setup(config, job=job, **extra)
            self.go_on()

    return Bound(config=job.space.to_config(job.space.parse(genotype)))


def network(job, genotype=FIRST):
    return start(job, genotype).candidates[0].model


@pytest.fixture
def held_out(digits):
    return digits.select(torch.arange(1000, 1100))


@pytest.fixture
def warm_job(make_job):
    job = make_job(epochs=2, lr=0.02, warm_host={"epochs": 3, "batch_size": 32, "lr": 0.1})
    return replace(job, host=train_host(job))


def test_the_host_is_the_network_without_attention_trained_plainly(warm_job, assert_same) -> None:
    job = warm_job
    model = job.network.with_baseline("none", seed=job.seed)
    batches = Batches(
        job.data.train,
        32,
        job.data.normalisation,
        seed=job.seed,
        shuffle=True,
        drop_last=True,
        augmentation=job.data.augmentation,
    )
    protocol = TrainingProtocol(epochs=3, batch_size=32, lr=0.1)
    trainer = Trainer(model, model.parameters(), protocol, 9, CPU)
    for _ in range(3):
        train_epoch(trainer, batches)
    assert_same(dict(job.host.state), dict(model.state_dict()))
    assert job.host.samples == job.samples_of_host == 3 * 96


def test_candidates_start_with_the_hosts_weights_and_their_own_attention(warm_job) -> None:
    one, other = network(warm_job).state_dict(), network(warm_job, SECOND).state_dict()
    for name, value in warm_job.host.state.items():
        assert torch.equal(one[name], value)
        assert torch.equal(other[name], value)
    cold = warm_job.network.with_genotype(FIRST, seed=warm_job.seed).state_dict()
    own = one.keys() - warm_job.host.state.keys()
    assert own
    for name in own:
        assert torch.equal(one[name], cold[name])


def test_a_candidate_leaves_the_shared_host_as_it_was(warm_job) -> None:
    before = {name: value.clone() for name, value in warm_job.host.state.items()}
    start(warm_job).train()
    for name, value in warm_job.host.state.items():
        assert torch.equal(before[name], value)


def test_a_warm_trial_without_its_host_says_what_to_do(make_job) -> None:
    job = make_job(warm_host={"epochs": 1})
    with pytest.raises(ValueError, match="train the host first"):
        start(job)
    with pytest.raises(ValueError, match="has no warm host"):
        train_host(make_job())
    stranger = TrainedHost({"layer9.weight": torch.zeros(1)}, 1, 1.0)
    with pytest.raises(ValueError, match=r"another network: it has 'layer9\.weight'"):
        start(replace(job, host=stranger))


def test_a_host_that_diverges_is_told(make_job) -> None:
    job = make_job(warm_host={"epochs": 2, "lr": 1e30, "clip": None})
    with pytest.raises(Diverged):
        train_host(job)


def test_averaged_weights_are_the_exponential_mean_of_the_steps(make_job) -> None:
    # By the recursion itself, in float64, over a copy of the trainable's steps.
    job = make_job(epochs=2, averaging=0.8, augment=False)
    trainable = start(job)
    result = [trainable.train() for _ in range(2)][-1]
    model = job.network.with_genotype(FIRST, seed=job.seed)
    batches = Batches(
        job.data.train, 16, job.data.normalisation, seed=job.seed, shuffle=True, drop_last=True
    )
    trainer = Trainer(model, model.parameters(), job.protocol, 12, CPU)
    mean: dict[str, torch.Tensor] = {}
    for _ in range(2):
        for batch in batches:
            trainer.step(batch)
            for name, value in model.state_dict().items():
                new = value.double()
                mean[name] = 0.8 * mean[name] + 0.2 * new if name in mean else new
    judged = trainable.candidates[0].evaluated_model.state_dict()
    for name, value in mean.items():
        if judged[name].is_floating_point():
            torch.testing.assert_close(judged[name].double(), value, rtol=1e-4, atol=1e-6)
    val = Batches(job.data.validation, 512, job.data.normalisation)
    found = evaluate(trainable.candidates[0].evaluated_model, val, job.protocol, CPU)
    assert (result["val_loss"], result["val_accuracy"]) == (found.loss, found["accuracy"])
    assert found != evaluate(trainable.candidates[0].model, val, job.protocol, CPU)


def test_a_resumed_average_goes_on_bit_for_bit(make_job, tmp_path, assert_same) -> None:
    job = make_job(epochs=3, averaging=0.9)
    undisturbed = start(job)
    expected = [undisturbed.train()["val_loss"] for _ in range(3)]
    interrupted = start(job)
    interrupted.train()
    interrupted.save_checkpoint(str(tmp_path))
    fresh = start(job, SECOND)
    fresh.reset_config(job.space.to_config(job.space.parse(FIRST)))
    fresh.load_checkpoint(str(tmp_path))
    assert [fresh.train()["val_loss"] for _ in range(2)] == expected[1:]
    assert_same(
        dict(fresh.candidates[0].evaluated_model.state_dict()),
        dict(undisturbed.candidates[0].evaluated_model.state_dict()),
    )


def test_a_closer_look_changes_nothing_of_what_a_search_sees(held_out, make_job) -> None:
    job = make_job(epochs=2, averaging=0.9)
    plain, studied = start(job), start(job, kind=StudiedTrainable, test=held_out)
    for epoch in (1, 2):
        seen, more = plain.train(), studied.train()
        for key in ("train_loss", "val_loss", "val_accuracy", "samples"):
            assert seen[key] == more[key]
        last = evaluate(studied.candidates[0].model, studied.val_batches, job.protocol, CPU)
        assert (more["last_val_loss"], more["last_val_accuracy"]) == (last.loss, last["accuracy"])
        assert ("test_loss" in more) == (epoch == 2)
    images = Batches(held_out, 512, job.data.normalisation)
    test = evaluate(studied.candidates[0].evaluated_model, images, job.protocol, CPU)
    assert (more["test_loss"], more["test_accuracy"]) == (test.loss, test["accuracy"])


def test_a_lost_training_has_the_worst_test_metrics(held_out, make_job) -> None:
    job = make_job(epochs=2, averaging=0.9, lr=1e30, clip=None)
    result = start(job, kind=StudiedTrainable, test=held_out).train()
    assert result["diverged"]
    assert result["test_loss"] == result["last_val_loss"] == float("inf")
    assert result["test_accuracy"] == result["last_val_accuracy"] == 0


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_a_hosts_own_weights_move_at_their_share_of_the_rate(warm_job, share) -> None:
    protocol = warm_job.protocol.model_copy(
        update={"host_lr": share, "momentum": 0.0, "weight_decay": 0.0, "augment": False}
    )
    slow, fast = (
        replace(warm_job, protocol=protocol),
        replace(warm_job, protocol=protocol.model_copy(update={"host_lr": 1.0})),
    )
    first, second = (start(job).candidates[0] for job in (slow, fast))
    before = {name: p.detach().clone() for name, p in first.model.named_parameters()}
    batch = next(iter(first.batches))
    for trial in (first, second):
        trial.trainer.step(batch)
    moved = 0
    for (name, p), q in zip(first.model.named_parameters(), second.model.parameters(), strict=True):
        rate = share if name in warm_job.host.state else 1.0
        torch.testing.assert_close(
            p.detach() - before[name], rate * (q.detach() - before[name]), rtol=1e-3, atol=1e-7
        )
        moved += bool((p.detach() != before[name]).any())
    assert moved > 5


def test_a_share_without_a_warm_host_is_refused(make_job) -> None:
    with pytest.raises(ValueError, match="host_lr slows a warm host down"):
        make_job(host_lr=0.5)
