"""`ProxyTrainable`, driven without Ray: resumed, reused, diverged."""

from __future__ import annotations

import pickle
from dataclasses import fields, is_dataclass, replace

import pytest
import torch

from search_spaces.space import SearchSpace
from trainables.data import Batches, make_splits, search_data
from trainables.proxy.trainable import ProxyTrainable
from trainables.training.loop import Trainer, train_epoch

FIRST = "gap_gmp-fc-affine-pnorm-gap-conv3x3"
SECOND = "cov-conv3-affine-gap_std-pnorm-conv7x7"


def start(job, genotype=FIRST):
    """Build the trainable as a Tune worker does, with the job bound."""

    class Bound(ProxyTrainable):
        def setup(self, config):
            super().setup(config, job=job)
            self.go_on()

    return Bound(config=job.space.to_config(job.space.parse(genotype)))


def metrics(result):
    """What of a result depends on the training alone."""
    names = ("train_loss", "val_loss", "val_accuracy", "samples", "epoch", "genotype", "done")
    return {name: result[name] for name in names}


def state(trainable):
    return {
        "candidates": [candidate.state_dict() for candidate in trainable.candidates],
    }


def save(trainable, folder):
    folder.mkdir()
    trainable.save_checkpoint(str(folder))
    return str(folder)


def test_a_resumed_run_goes_on_bit_for_bit(make_job, tmp_path, assert_same):
    job = make_job(epochs=4)
    undisturbed = start(job)
    expected = [metrics(undisturbed.train()) for _ in range(4)]
    assert expected[3]["done"]
    assert not expected[2]["done"]

    interrupted = start(job)
    for _ in range(2):
        interrupted.train()
    checkpoint = save(interrupted, tmp_path / "two")
    interrupted.train()  # what happens after the checkpoint must not leak into it
    fresh = start(job)
    fresh.load_checkpoint(checkpoint)
    assert [metrics(fresh.train()) for _ in range(2)] == expected[2:]
    assert_same(state(fresh), state(undisturbed))

    # And in a process that has been training another genotype.
    reused = start(job, SECOND)
    reused.train()
    reused.reset_config(job.space.to_config(job.space.parse(FIRST)))
    reused.load_checkpoint(checkpoint)
    assert [metrics(reused.train()) for _ in range(2)] == expected[2:]
    assert_same(state(reused), state(undisturbed))


def test_tunes_own_save_and_restore_carry_the_training(make_job, tmp_path, assert_same):
    job = make_job(epochs=3)
    first, second = start(job), start(job)
    first.train()
    first.save(str(tmp_path / "checkpoint"))
    second.restore(str(tmp_path / "checkpoint"))
    assert metrics(second.train()) == metrics(first.train())
    assert_same(state(second), state(first))


DROPOUT = """
import torch
from torch import nn
from search_spaces.ops import register_op

@register_op("channel_excite", "dropped")
class Dropped(nn.Module):
    '''A gate that draws from torch's global generator.'''
    def __init__(self, channels, size, *, affine=True, device=None, dtype=None):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
    def forward(self, z):
        return self.dropout(torch.sigmoid(z))
"""


def test_operations_that_draw_at_random_resume_bit_for_bit_too(
    make_job, write_space, tmp_path, assert_same
):
    path = write_space({"channel_excite": ["dropped"]}, DROPOUT)
    job = make_job(path, epochs=3)
    genotype = next(iter(job.space))
    undisturbed = start(job, genotype)
    expected = [metrics(undisturbed.train()) for _ in range(3)]
    torch.manual_seed(123)  # whatever else the process has drawn
    first = start(job, genotype)
    assert metrics(first.train()) == expected[0]
    checkpoint = save(first, tmp_path / "one")
    torch.manual_seed(321)
    second = start(job, genotype)
    second.load_checkpoint(checkpoint)
    assert [metrics(second.train()) for _ in range(2)] == expected[1:]
    assert_same(state(second), state(undisturbed))


def test_reset_config_gives_what_a_fresh_trainable_gives(make_job, assert_same):
    job = make_job(epochs=2)
    reused = start(job, FIRST)
    reused.train()
    assert reused.reset(job.space.to_config(job.space.parse(SECOND)))
    reused.go_on()
    fresh = start(job, SECOND)
    assert_same(state(reused), state(fresh))
    for _ in range(2):
        assert metrics(reused.train()) == metrics(fresh.train())
    assert_same(state(reused), state(fresh))


def test_an_epoch_is_a_plain_training_epoch(make_job, assert_same):
    job = make_job(epochs=2, augment=False)
    trainable = start(job)
    result = trainable.train()
    model = job.network.with_genotype(FIRST, seed=job.seed)
    data = Batches(
        job.data.train, 16, job.data.normalisation, seed=job.seed, shuffle=True, drop_last=True
    )
    trainer = Trainer(model, model.parameters(), job.protocol, 12, torch.device("cpu"))
    assert result["train_loss"] == train_epoch(trainer, data)
    assert_same(dict(trainable.candidates[0].model.state_dict()), dict(model.state_dict()))


def test_samples_are_counted_without_the_short_last_batch_and_with_validation(make_job):
    job = make_job(train=90, epochs=3, batch_size=16)
    assert job.samples_per_epoch == 80 + 60 // 3
    assert job.samples_per_trial == 300
    trainable = start(job)
    seen = []
    step = trainable.candidates[0].trainer.step
    trainable.candidates[0].trainer.step = lambda batch: (seen.append(len(batch[1])), step(batch))[
        1
    ]
    results = [trainable.train() for _ in range(3)]
    assert [result["samples"] for result in results] == [100, 200, 300]
    assert sum(seen) == 240
    assert [result["done"] for result in results] == [False, False, True]
    assert results[0]["train_seconds"] < results[2]["train_seconds"]


def test_a_batch_larger_than_the_set_is_the_whole_set(make_job):
    job = make_job(train=50, batch_size=128, epochs=1)
    assert job.samples_per_epoch == 50 + 20
    assert start(job).train()["samples"] == 70


def assert_diverged(result, reason):
    assert result["done"]
    assert result["diverged"]
    assert reason in result["reason"]
    assert result["val_loss"] == float("inf")
    assert result["val_accuracy"] == 0.0
    assert result["samples"] == 96 + 20


def test_a_learning_rate_beyond_reason_ends_the_trial_with_a_reason(make_job):
    assert_diverged(start(make_job(epochs=3, lr=1e6, clip=None)).train(), "loss")


NOT_A_NUMBER = """
import torch
from search_spaces.ops import register_op

@register_op("channel_excite", "not_a_number")
def not_a_number(z):
    '''A gate that is not a number.'''
    return z * float("nan")
"""


def test_an_operation_that_gives_nan_ends_the_trial_with_a_reason(make_job, write_space):
    path = write_space({"refine_excite": ["affine", "not_a_number"]}, NOT_A_NUMBER)
    job = make_job(path)
    good, bad = job.space
    assert_diverged(start(job, bad).train(), "not finite")
    assert not start(job, good).train()["diverged"]


def host_state(model):
    return {key: value for key, value in model.state_dict().items() if ".attention." not in key}


def test_two_genotypes_of_a_seed_start_from_the_same_host(make_job, assert_same):
    first, second, other = (
        start(job, genotype).candidates[0]
        for job, genotype in (
            (make_job(), FIRST),
            (make_job(), SECOND),
            (make_job(seed=1), FIRST),
        )
    )
    assert len(host_state(first.model)) > 20
    assert_same(host_state(first.model), host_state(second.model))
    assert_same(first.batches.state_dict(), second.batches.state_dict())
    assert not torch.equal(other.model.conv1.weight, first.model.conv1.weight)
    assert not torch.equal(next(iter(other.batches))[1], next(iter(first.batches))[1])


def test_a_genotype_from_outside_the_space_is_refused(make_job):
    job = make_job()
    config = SearchSpace.load("sase").to_config(SearchSpace.load("sase")[1])
    with pytest.raises(Exception, match="conv5"):
        start(job).reset_config({**config, "channel_excite": "conv5"})


def tensors_in(thing, seen):
    """Every tensor that can be reached from an object."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from tensors_in(value, seen)
    elif isinstance(thing, (list, tuple)):
        for value in thing:
            yield from tensors_in(value, seen)
    elif is_dataclass(thing):
        for each in fields(thing):
            yield from tensors_in(getattr(thing, each.name), seen)
        yield from tensors_in(getattr(thing, "__dict__", {}), seen)


def test_no_test_image_can_be_reached_from_the_job(digits, make_job):
    job = make_job(train=700, validation=200)
    splits = make_splits(digits, seed=0, train_size=700, validation_size=200)
    test = digits.select(splits.test).images
    assert len(test) > 300

    # Storages, not shapes: a view would take the whole set along.
    found = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors_in(job, set())}
    reachable = sum(storage.nbytes() for storage in found.values())
    assert reachable == 900 * (64 + 8), "900 images of 64 bytes with int64 labels"
    blob = pickle.dumps(job)
    assert len(blob) < 900 * (64 + 8) + 20_000
    known = {
        image.numpy().tobytes() for image in (*job.data.train.images, *job.data.validation.images)
    }
    hidden = {image.numpy().tobytes() for image in test} - known
    assert len(hidden) > 300
    assert all(image in blob for image in known), "the images would be found if they were there"
    assert not any(image in blob for image in hidden)
    leaking = replace(job, data=replace(search_data(digits, splits), name=test))
    assert any(image in pickle.dumps(leaking) for image in hidden)


def test_setup_without_a_job_says_how_to_hand_it_over(make_job):
    with pytest.raises(ValueError, match="with_parameters"):
        ProxyTrainable(config={})


def test_a_trial_of_several_seeds_reports_their_mean_and_spread(make_job):
    several = start(make_job(seeds=3))
    result = [several.train() for _ in range(2)][-1]
    alone = []
    for seed in (0, 1_000_000, 2_000_000):
        trial = start(make_job(seed=seed))
        alone.append([trial.train() for _ in range(2)][-1])
    for key in ("val_loss", "val_accuracy", "train_loss"):
        mean = sum(r[key] for r in alone) / 3
        assert result[key] == pytest.approx(mean, rel=1e-6)
        if key != "train_loss":
            spread = (sum((r[key] - mean) ** 2 for r in alone) / 2) ** 0.5
            assert result[f"{key}_sd"] == pytest.approx(spread, rel=1e-3)
    assert result["samples"] == 3 * alone[0]["samples"]
    assert "val_loss_sd" not in alone[0]


def test_a_trial_of_several_seeds_resumes_bit_for_bit(make_job, tmp_path, assert_same):
    job = make_job(seeds=2, epochs=3)
    undisturbed = start(job)
    expected = [metrics(undisturbed.train()) for _ in range(3)]
    interrupted = start(job)
    interrupted.train()
    fresh = start(job)
    fresh.load_checkpoint(save(interrupted, tmp_path / "one"))
    assert [metrics(fresh.train()) for _ in range(2)] == expected[1:]
    assert_same(state(fresh), state(undisturbed))
