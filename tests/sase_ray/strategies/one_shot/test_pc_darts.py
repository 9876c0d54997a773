"""PC-DARTS, ADARTS and both kinds of DARTS on random features: what they change in DARTS."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sase_ray.strategies import SearchTask
from sase_ray.strategies.catalogue import make_strategy
from search_spaces.errors import UserError
from search_spaces.mixture import Mixture
from search_spaces.network import NetworkSpec, Supernet
from search_spaces.ops.registry import build_op
from search_spaces.partial_block import AttentivePartialSuperSASE, PartialSuperSASE
from search_spaces.space import SearchSpace

DARTS_SETTINGS = {
    "batch_size": 16,
    "lr": 0.025,
    "lr_min": 0.001,
    "alpha_lr": 3e-3,
    "warmup": 0.0,
    "parts": 1,
    "edge_normalisation": False,
}


def test_with_one_part_and_no_edge_normalisation_it_is_darts(make_job, run_search, assert_same):
    job = make_job()
    _, expected = run_search(job, "darts", 200, batch_size=16, alpha_lr=3e-3)
    _, ours = run_search(job, "pc-darts", 200, **DARTS_SETTINGS)
    names = ("train_loss", "val_loss", "alpha", "ranking", "samples", "genotype")
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        assert_same({k: one[k] for k in names}, {k: other[k] for k in names})
    _, other = run_search(job, "pc-darts", 200, **{**DARTS_SETTINGS, "parts": 2})
    assert other[-1]["train_loss"] != expected[-1]["train_loss"]


def test_the_papers_settings_are_the_defaults(make_job):
    strategy = make_strategy("pc-darts")
    protocol = strategy.algorithm(SearchTask(make_job(), 10_000)).protocol
    assert (protocol.batch_size, protocol.lr, protocol.lr_min) == (256, 0.1, 0.0)
    assert (protocol.momentum, protocol.weight_decay) == (0.9, 3e-4)
    assert (strategy.parts, strategy.alpha_weight_decay) == (4, 1e-3)
    assert strategy.alpha_betas == (0.5, 0.999)


def test_weights_over_joins_are_learned_by_the_gradient_of_the_loss(start_algorithm):
    algorithm, (train, validation, *_) = start_algorithm("pc-darts", alpha_lr=0.01)
    assert len(algorithm.learned) == 6 + 2
    before = [p.detach().clone() for p in algorithm.learned]
    assert all(torch.equal(b, torch.zeros(2)) for b in before[6:])
    gradients = algorithm.gradient(train, validation)
    # Against finite differences, of beta as of alpha.
    step = 1e-4
    for place in (0, 6, 7):
        for index in range(2):
            losses = []
            for sign in (1, -1):
                with torch.no_grad():
                    algorithm.learned[place][index] += sign * step
                    losses.append(float(algorithm.trainer.loss(validation)))
                    algorithm.learned[place][index] -= sign * step
            slope = (losses[0] - losses[1]) / (2 * step)
            assert float(gradients[place][index]) == pytest.approx(slope, rel=2e-2, abs=2e-5)
    algorithm.architecture_step(train, validation)
    assert all(
        not torch.equal(new, old) for new, old in zip(algorithm.learned, before, strict=True)
    )


def test_the_weights_over_a_join_are_a_softmax_of_beta(start_algorithm):
    algorithm, _ = start_algorithm("pc-darts")
    with torch.no_grad():
        algorithm.beta[0].copy_(torch.tensor([1.0, 0.0]))
        algorithm.beta[1].copy_(torch.tensor([0.0, 2.0]))
    squeezes, gates = algorithm.mixture().joins
    assert squeezes.tolist() == pytest.approx([0.7310586, 0.2689414])
    assert gates.tolist() == pytest.approx([0.1192029, 0.8807971])
    assert start_algorithm("pc-darts", edge_normalisation=False)[0].mixture().joins is None


def test_alpha_rests_in_the_warm_up(make_job, start_search):
    trainable = start_search(make_job(), "pc-darts", 16 * 17, batch_size=16, warmup=0.3)
    assert trainable.total_steps == 10
    alpha = [a.detach().clone() for a in trainable.algorithm.learned]
    trainable.train()  # three steps, all of the warm-up
    assert all(torch.equal(a, b) for a, b in zip(trainable.algorithm.learned, alpha, strict=True))
    result = trainable.train()
    assert not any(
        torch.equal(a, b) for a, b in zip(trainable.algorithm.learned, alpha, strict=True)
    )
    assert result["samples"] == 16 * (3 + 2 * 3)


@pytest.mark.parametrize("name", ["pc-darts", "adarts", "rf-pc-darts"])
def test_a_width_that_cannot_be_cut_is_one_sentence(name, make_job):
    algorithm = make_strategy(name, {"parts": 3}).algorithm(SearchTask(make_job(), 10_000))
    network = NetworkSpec("resnet8", 10, 1, (8, 8), {"width": 4})
    with pytest.raises(UserError, match="4 channels cannot be cut into 3 parts"):
        algorithm.build_supernet(network, SearchSpace.load("sase_tiny"), 0)


@pytest.mark.parametrize("name", ["pc-darts", "adarts", "rf-pc-darts"])
def test_a_width_that_cannot_be_cut_is_refused_before_anything_starts(name, make_job):
    strategy = make_strategy(name, {"parts": 3, "batch_size": 16})
    with pytest.raises(UserError, match="4 channels cannot be cut into 3 parts"):
        strategy.check(SearchTask(make_job(), 10_000))


def test_adarts_blocks_choose_their_channels(start_algorithm):
    for name, kind in [("adarts", AttentivePartialSuperSASE), ("pc-darts", PartialSuperSASE)]:
        algorithm, _ = start_algorithm(name)
        assert {type(block) for _, block in algorithm.supernet.blocks()} == {kind}


def test_the_attention_of_adarts_is_stepped_with_the_weights(start_algorithm):
    algorithm, (train, *_) = start_algorithm("adarts")
    attention = algorithm.supernet.blocks()[-1][1].attention
    before = [p.detach().clone() for p in attention.parameters()]
    for _ in range(3):
        algorithm.trainer.step(train)
    after = list(attention.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


def norm_names(supernet):
    return {
        f"{name}.{leaf}"
        for name, module in supernet.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for leaf, _ in module.named_parameters()
    }


@pytest.mark.parametrize("name", ["rf-darts", "rf-pc-darts"])
def test_on_random_features_batch_norms_and_alpha_move_alone(name, make_job, start_search):
    options = {"warmup": 0.0} if name == "rf-pc-darts" else {}
    trainable = start_search(make_job(), name, 16 * 2 * 9, batch_size=16, **options)
    supernet = trainable.supernet
    before = {key: value.detach().clone() for key, value in supernet.named_parameters()}
    alpha = [a.detach().clone() for a in trainable.algorithm.learned]
    for _ in range(3):
        trainable.train()
    norms = norm_names(supernet)
    moved = {key for key, value in supernet.named_parameters() if not value.equal(before[key])}
    assert moved <= norms
    assert len(moved) > 0.9 * len(norms)
    assert any(".join.norm." in key for key in moved), "those of the blocks among them"
    assert len(norms) < len(before)
    pairs = zip(trainable.algorithm.learned, alpha, strict=True)
    assert not any(torch.equal(new, old) for new, old in pairs)


def test_random_features_are_those_of_the_seed(make_job):
    job = make_job()
    algorithm = make_strategy("rf-darts").algorithm(SearchTask(job, 10_000))
    ours = algorithm.build_supernet(job.network, job.space, 3)
    plain = Supernet(job.network, job.space, seed=3).state_dict()
    assert all(value.equal(plain[key]) for key, value in ours.state_dict().items() if key in plain)
    images = torch.randn(4, 1, 8, 8)
    even = [F.softmax(torch.zeros(3), 0) for _ in job.space.variables]
    assert ours(images, Mixture(even)).shape == (4, 10)


def test_it_reports_how_many_channels_the_operations_see(start_algorithm):
    # The narrowest block of the test's network has four.
    for parts in (4, 2, 1):
        algorithm, _ = start_algorithm("pc-darts", parts=parts)
        assert algorithm.report()["shown_channels"] == 4 // parts


def test_on_two_channels_a_convolution_of_seven_taps_is_one_of_three():
    """Why that matters: the outer taps meet nothing but padding."""
    seven, three = (build_op("channel_excite", name, 2, (4, 4)) for name in ("conv7", "conv3"))
    with torch.no_grad():
        three.convs[0].weight.copy_(seven.convs[0].weight[:, :, 2:5])
    z = torch.randn(5, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(seven(z), three(z))
