"""Blocks that show their operations a part of the channels, against formulas written out."""

from __future__ import annotations

import pytest
import torch

from search_spaces.errors import UserError
from search_spaces.genotype import EDGES
from search_spaces.mixture import Mixture
from search_spaces.network import NetworkSpec, Supernet
from search_spaces.partial_block import AttentivePartialSuperSASE, PartialSuperSASE
from search_spaces.space import SearchSpace
from search_spaces.super_block import SuperSASE

SPACE = SearchSpace.load("sase_tiny")
CHANNELS = 8


def block(kind=PartialSuperSASE, seed=0, **options):
    torch.manual_seed(seed)
    return kind(CHANNELS, SPACE, size=(4, 4), **options).double()


def features(batch=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, CHANNELS, 4, 4, generator=generator, dtype=torch.float64)


def mixture(seed=2, joins=None):
    generator = torch.Generator().manual_seed(seed)
    edges = [torch.rand(3, generator=generator, dtype=torch.float64) for _ in EDGES]
    return Mixture([row / row.sum() for row in edges], joins)


def test_of_one_part_it_is_the_whole_mixed_block():
    partial, whole = block(parts=1), block(SuperSASE)
    x = features()
    assert torch.equal(partial(x, mixture()), whole(x, mixture()))
    partial.eval(), whole.eval()
    assert torch.equal(partial(x, mixture()), whole(x, mixture()))


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_the_channels_that_are_not_shown_pass_and_all_are_shuffled(parts):
    partial = block(parts=parts)
    x = features()
    out = partial(x, mixture())
    shown = CHANNELS // parts
    mixed = partial.mixed(x[:, :shown], mixture())
    # As ShuffleNet: groups of C/K channels are dealt out one by one.
    for place in range(CHANNELS):
        group, index = place % parts, place // parts
        source = group * shown + index
        expected = mixed[:, source] if source < shown else x[:, source]
        assert torch.equal(out[:, place], expected), place
    assert not torch.equal(mixed, x[:, :shown])


def test_the_shuffle_of_eight_channels_in_four_parts_by_hand():
    partial = block(parts=4)
    partial.mixed.forward = lambda shown, mixture: shown
    x = torch.arange(8.0).view(1, 8, 1, 1)
    assert partial(x, mixture()).flatten().tolist() == [0, 2, 4, 6, 1, 3, 5, 7]


@pytest.mark.parametrize("kind", [PartialSuperSASE, AttentivePartialSuperSASE])
@pytest.mark.parametrize("parts", [3, 5, 16])
def test_a_width_that_cannot_be_cut_is_refused(kind, parts):
    with pytest.raises(UserError, match=f"8 channels cannot be cut into {parts} parts"):
        block(kind, parts=parts)


def test_a_supernet_of_partial_channels_gives_networks_with_fresh_weights_alone():
    spec = NetworkSpec("resnet8", 10, 1, (8, 8), {"width": 4})
    supernet = Supernet(spec, SPACE, block=PartialSuperSASE)
    with pytest.raises(UserError, match="inherit=False"):
        supernet.extract(SPACE[0])
    assert supernet.extract(SPACE[0], inherit=False)(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_weights_over_the_joins_follow_the_formula():
    """s = ReLU(BN(conv(2 b_0 s_u, 2 b_1 s_x))); x + x (c_0 g_c + c_1 g_s)."""
    whole = block(SuperSASE)
    squeezes = torch.tensor([0.3, 0.7], dtype=torch.float64)
    gates = torch.tensor([0.9, 0.1], dtype=torch.float64)
    x, edges = features(), mixture().edges
    outputs = {}

    def mix(edge, weights, reads):
        return sum(w * op(reads) for w, op in zip(weights, whole.edges[edge], strict=True))

    z = outputs["z"] = mix("channel_squeeze", edges[0], x)
    channel_gate = mix("channel_excite", edges[1], z)
    refined = mix("refine_excite", edges[2], z) * x
    s_u = mix("refined_squeeze", edges[3], refined)
    s_x = mix("spatial_squeeze", edges[4], x)
    weight = whole.join.conv.weight.flatten()
    joined = weight[0] * 2 * squeezes[0] * s_u + weight[1] * 2 * squeezes[1] * s_x
    variance, mean = torch.var_mean(joined, correction=0)
    s = torch.relu((joined - mean) / torch.sqrt(variance + whole.join.norm.eps))
    spatial_gate = mix("spatial_excite", edges[5], s)
    expected = x + x * (gates[0] * channel_gate + gates[1] * spatial_gate)
    ours = whole(x, Mixture(edges, (squeezes, gates)))
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_equal_weights_over_the_joins_change_nothing():
    even = torch.tensor([0.5, 0.5], dtype=torch.float64)
    ours = block(SuperSASE)(features(), mixture(joins=(even, even)))
    torch.testing.assert_close(ours, block(SuperSASE)(features(), mixture()))


def attention_by_hand(chosen_block, x):
    """CBAM's channel attention: sigmoid(MLP(mean) + MLP(max))."""
    first = chosen_block.attention.fc1.weight.flatten(1)
    second = chosen_block.attention.fc2.weight.flatten(1)
    logits = sum(
        torch.relu(summary @ first.T) @ second.T
        for summary in (x.mean((2, 3)), x.flatten(2).max(2).values)
    )
    return 1 / (1 + torch.exp(-logits))


def test_the_attention_shows_the_channels_with_the_highest_scores():
    attentive = block(AttentivePartialSuperSASE, parts=4)
    x = features()
    scores = attention_by_hand(attentive, x)
    chosen = sorted(range(CHANNELS), key=lambda c: -float(scores.mean(0)[c].detach()))[:2]
    shown = []
    attentive.mixed.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0]))
    out = attentive(x, mixture())
    weighed = x * scores[:, :, None, None]
    torch.testing.assert_close(shown[0], weighed[:, sorted(chosen)])
    for channel in range(CHANNELS):
        changed = not torch.equal(out[:, channel], x[:, channel])
        assert changed == (channel in chosen), "the others pass, each in its place"


def test_the_attention_is_trained():
    attentive = block(AttentivePartialSuperSASE, parts=2)
    attentive(features(), mixture()).square().sum().backward()
    for parameter in attentive.attention.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0


def test_the_running_score_is_the_moving_mean_of_the_scores():
    attentive = block(AttentivePartialSuperSASE, parts=2)
    expected = torch.zeros(CHANNELS, dtype=torch.float64)
    for seed in range(3):
        x = features(seed=seed)
        expected = 0.9 * expected + 0.1 * attention_by_hand(attentive, x).mean(0).detach()
        attentive(x, mixture())
    torch.testing.assert_close(attentive.running_score, expected)
    attentive.eval()
    attentive(features(seed=9), mixture())
    torch.testing.assert_close(attentive.running_score, expected)


@pytest.mark.parametrize("kind", [PartialSuperSASE, AttentivePartialSuperSASE])
def test_outside_of_training_an_image_is_seen_without_the_rest_of_the_batch(kind):
    partial = block(kind, parts=4)
    for seed in range(4):
        partial(features(seed=seed), mixture())
    partial.eval()
    x = features(seed=7)
    whole = partial(x, mixture())
    for index in range(len(x)):
        torch.testing.assert_close(partial(x[index : index + 1], mixture())[0], whole[index])
