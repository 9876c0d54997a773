"""`SupernetTrainable`, driven without Ray."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from sase_ray.strategies import SearchTask
from sase_ray.strategies.catalogue import make_strategy
from search_spaces.genotype import Genotype
from trainables.one_shot.trainable import RANKING_SIZE, SupernetTrainable

PASSES = {"darts": 2, "darts-2nd": 5}


def start(job, name="darts", budget=1000, **options):
    """Build the trainable as a Tune worker does: the algorithm comes as a copy."""
    task = SearchTask(job, budget)
    algorithm = make_strategy(name, {"batch_size": 16, **options}).algorithm(task)
    return start_with(job, algorithm, budget)


def start_with(job, algorithm, budget):
    class Bound(SupernetTrainable):
        def setup(self, config):
            super().setup(config, job=job, algorithm=deepcopy(algorithm), budget=budget)
            self.go_on()

    return Bound(config={})


def metrics(result):
    names = ("train_loss", "val_loss", "val_accuracy", "samples", "epoch", "genotype", "done")
    return {name: result[name] for name in (*names, "alpha", "ranking")}


def state(trainable):
    return {
        "supernet": dict(trainable.supernet.state_dict()),
        "trainer": trainable.trainer.state_dict(),
        "algorithm": trainable.algorithm.state_dict(),
        "train": trainable.train_batches.state_dict(),
        "arch": trainable.arch_batches.state_dict(),
    }


def run(trainable):
    results = []
    while not results or not results[-1]["done"]:
        results.append(trainable.train())
    return results


@pytest.mark.slow
@pytest.mark.parametrize("name", ["darts", "darts-2nd"])
def test_a_resumed_search_goes_on_bit_for_bit(name, make_job, tmp_path, assert_same):
    job = make_job()
    budget = PASSES[name] * 16 * 8  # two full epochs of three steps, and one of two
    undisturbed = start(job, name, budget)
    expected = [metrics(result) for result in run(undisturbed)]
    assert len(expected) == 3

    interrupted = start(job, name, budget)
    interrupted.train()
    interrupted.save_checkpoint(str(tmp_path))
    interrupted.train()
    torch.manual_seed(5)
    fresh = start(job, name, budget)
    fresh.load_checkpoint(str(tmp_path))
    assert_same([metrics(result) for result in run(fresh)], expected[1:])
    assert_same(state(fresh), state(undisturbed))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["darts", "darts-2nd"])
@pytest.mark.parametrize("budget", [160, 479, 1000])
def test_the_budget_is_used_up_to_the_last_whole_step(name, budget, make_job):
    job = make_job(train=100)
    trainable = start(job, name, budget)
    passed = []
    loss = trainable.trainer.loss
    trainable.trainer.loss = lambda batch: (passed.append(len(batch[1])), loss(batch))[1]
    results = run(trainable)
    one_step = PASSES[name] * 16
    assert budget - one_step < results[-1]["samples"] <= budget
    assert sum(passed) == results[-1]["samples"], "each pass over a sample is counted"
    # Halves of 50 give three batches of 16.
    counts = [min(3 * one_step * (i + 1), results[-1]["samples"]) for i in range(len(results))]
    assert [result["samples"] for result in results] == counts


def test_a_budget_below_one_step_is_refused(make_job):
    with pytest.raises(ValueError, match="31 samples"):
        start(make_job(), "darts", 31)


def test_weights_and_alpha_learn_from_disjoint_halves(make_job):
    job = make_job(train=97)
    trainable = start(job)
    weights = set(trainable.train_batches._indices.tolist())
    alpha = set(trainable.arch_batches._indices.tolist())
    assert not weights & alpha
    assert weights | alpha == set(range(97))
    assert len(weights) - len(alpha) == 1


def test_each_step_is_given_the_batches_of_the_two_halves(make_job):
    job = make_job(augment=False)
    trainable = start(job)
    images = trainable.train_batches._prepare(job.data.train.images)
    own = {True: set(), False: set()}

    def where(batch):
        return {int((images == image).flatten(1).all(1).nonzero()[0]) for image in batch[0]}

    def architecture_step(train, validation):
        own[True] |= where(train)
        own[False] |= where(validation)

    trainable.algorithm.architecture_step = architecture_step
    trainable.train()
    assert own[True] == set(trainable.train_batches._indices.tolist())
    assert own[False] == set(trainable.arch_batches._indices.tolist())


@pytest.mark.parametrize("name", ["darts", "darts-2nd"])
def test_alpha_and_weights_both_move_and_the_probabilities_are_reported(name, make_job):
    job = make_job()
    trainable = start(job, name, alpha_lr=0.1)
    before = deepcopy(state(trainable))
    result = trainable.train()
    after = state(trainable)
    for old, new in zip(before["algorithm"]["alpha"], after["algorithm"]["alpha"], strict=True):
        assert (old - new).abs().max() > 0.02
    moved = [
        key for key, old in before["supernet"].items() if not old.equal(after["supernet"][key])
    ]
    assert len(moved) > 0.9 * len(before["supernet"])
    assert list(result["alpha"]) == [variable.name for variable in job.space.variables]
    for row, alpha in zip(result["alpha"].values(), after["algorithm"]["alpha"], strict=True):
        assert row == pytest.approx((alpha.exp() / alpha.exp().sum()).tolist(), rel=1e-5)


def test_the_ranking_is_led_by_the_argmax_of_each_edge(make_job):
    job = make_job()
    result = run(start(job, alpha_lr=0.1, budget=300))[-1]
    best = [
        variable.choices[max(range(len(row)), key=row.__getitem__)]
        for variable, row in zip(job.space.variables, result["alpha"].values(), strict=True)
    ]
    assert result["genotype"] == str(Genotype(tuple(best)))
    assert result["ranking"][0][0] == result["genotype"]
    assert len({text for text, _ in result["ranking"]}) == RANKING_SIZE == 20
    scores = [score for _, score in result["ranking"]]
    assert scores == sorted(scores, reverse=True)


def test_a_space_with_choices_by_stage_is_searched_by_stage(
    make_job, write_space, tmp_path, assert_same
):
    choices = {"channel_squeeze": ["gap", "gap_gmp"], "spatial_excite": ["affine", "conv3x3"]}
    job = make_job(write_space(choices, scope="stage", stages=3))
    budget = 2 * 16 * 5
    trainable = start(job, budget=budget, alpha_lr=0.1)
    results = run(trainable)
    assert len(results[-1]["alpha"]) == 18
    assert "stage2.spatial_excite" in results[-1]["alpha"]
    assert job.space.parse(results[-1]["genotype"]).stages == 3
    # The stages see different features, so their alphas part.
    rows = [results[-1]["alpha"][f"stage{i}.spatial_excite"][0] for i in range(3)]
    assert len(set(rows)) == 3

    first = start(job, budget=budget, alpha_lr=0.1)
    first.train()
    first.save_checkpoint(str(tmp_path))
    second = start(job, budget=budget, alpha_lr=0.1)
    second.load_checkpoint(str(tmp_path))
    assert_same([metrics(r) for r in run(second)], [metrics(r) for r in results[1:]])


def test_a_diverged_search_ends_with_its_reason(make_job):
    (result,) = run(start(make_job(), lr=1e9, clip=1e9))
    assert result["diverged"]
    assert "loss" in result["reason"]
    assert result["val_loss"] == float("inf")
    assert result["val_accuracy"] == 0.0
