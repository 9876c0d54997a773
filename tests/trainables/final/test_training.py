"""Final training: reproducible, by one protocol, the test images looked at once, at the end."""

from __future__ import annotations

import pytest
import torch

from search_spaces.space import SearchSpace
from trainables.data import Batches, final_data, make_splits
from trainables.final.training import FinalJob, train_final
from trainables.training.loop import Trainer, train_epoch
from trainables.training.protocol import TrainingProtocol

GENOTYPE = "gap_gmp-fc-affine-pnorm-gap-conv3x3_x2"


@pytest.fixture(scope="module")
def data(digits):
    return final_data(digits, make_splits(digits, seed=0, train_size=96, validation_size=40))


@pytest.fixture
def make_final(make_job):
    def make(module=GENOTYPE, baseline=False, seed=0, space="sase", **protocol):
        return FinalJob(
            network=make_job().network,
            space=SearchSpace.load(space),
            module=module,
            baseline=baseline,
            protocol=TrainingProtocol(**{"epochs": 2, "batch_size": 16, **protocol}),
            seed=seed,
        )

    return make


def measured(result):
    return {key: value for key, value in result.items() if key != "train_seconds"}


def test_final_training_equals_a_plain_loop(make_final, data):
    job = make_final(augment=False)
    result = train_final(job, data)

    torch.manual_seed(0)
    model = job.network.with_genotype(GENOTYPE, seed=0)
    batches = Batches(data.train, 16, data.normalisation, seed=0, shuffle=True, drop_last=True)
    trainer = Trainer(model, model.parameters(), job.protocol, 16, torch.device("cpu"))
    for _ in range(2):
        train_loss = train_epoch(trainer, batches)
    model.eval()
    mean = torch.tensor(data.normalisation.mean).view(-1, 1, 1)
    std = torch.tensor(data.normalisation.std).view(-1, 1, 1)
    with torch.no_grad():
        logits = model((data.test.images / 255 - mean) / std)
    right = (logits.argmax(1) == data.test.labels).double().mean()
    loss = -logits.double().log_softmax(1)[torch.arange(len(logits)), data.test.labels].mean()
    assert result["train_loss"] == train_loss
    assert result["test_accuracy"] == pytest.approx(float(right))
    assert result["test_loss"] == pytest.approx(float(loss), rel=1e-4)
    assert result["samples"] == 2 * (136 // 16) * 16
    assert result["train_seconds"] > 0


def test_a_seed_gives_one_result_and_another_seed_another(make_final, data):
    first, second = train_final(make_final(), data), train_final(make_final(), data)
    assert measured(first) == measured(second)
    assert train_final(make_final(seed=1), data)["test_loss"] != first["test_loss"]


@pytest.mark.parametrize("name", ["none", "se", "eca", "cbam"])
def test_baselines_are_trained_by_the_same_protocol(name, make_final, data):
    result = train_final(make_final(name, baseline=True), data)
    assert not result["diverged"]
    assert 0 <= result["test_accuracy"] <= 1
    assert result["samples"] == 256


def test_longer_training_learns_the_digits(make_final, data):
    accuracy = train_final(make_final(epochs=12, lr=0.2), data)["test_accuracy"]
    assert accuracy > 0.5, "ten classes, so guessing gives 0.1"


def test_a_diverged_run_says_why_and_has_no_accuracy(make_final, data):
    result = train_final(make_final(lr=1e6, clip=None), data)
    assert result["diverged"]
    assert "loss" in result["reason"]
    assert result["test_accuracy"] == 0.0
    assert result["test_loss"] == float("inf")


OWN = """
from search_spaces.ops import register_op

@register_op("channel_squeeze", "corner")
def corner(x):
    '''The first pixel.'''
    return x[:, :, :1, :1]
"""


def test_a_users_own_operation_is_loaded(make_final, data, write_space):
    path = write_space({"channel_squeeze": ["corner"]}, OWN)
    genotype = str(next(iter(SearchSpace.load(path))))
    assert not train_final(make_final(genotype, space=path), data)["diverged"]
