import pytest
import torch
from torch import nn

from search_spaces.block import SASE
from search_spaces.costs import Cost, count_cost, measure_latency
from search_spaces.network import NetworkSpec

SPEC = NetworkSpec("resnet8", 10, 3, (16, 16), {"width": 8})


def convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 9x7 to 5x4
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False),
        nn.Conv2d(8, 6, 1, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    )


def test_a_convolutional_network_by_hand():
    positions = 5 * 4
    macs = positions * (8 * 3 * 9 + 8 * 2 * 9 + 6 * 8) + 6 * 10
    parameters = (8 * 3 * 9 + 8) + 2 * 8 + 8 * 2 * 9 + 6 * 8 + (6 * 10 + 10)
    assert count_cost(convolutions(), (3, 9, 7)) == Cost(parameters=parameters, macs=macs)


def test_frozen_parameters_do_not_count():
    network = convolutions()
    network[0].requires_grad_(False)
    assert count_cost(network, (3, 9, 7)).parameters == 16 + 144 + 48 + 70


def test_a_block_by_hand():
    block = SASE(32, "gap_gmp-fc-conv3-pnorm-gap-conv3x3_x2")
    gap_gmp, fc, conv3, join, spatial = 2, 2 * 32 * 2, 3, 2 + 2, 2 * 9
    cost = count_cost(block, (32, 6, 5))
    assert cost.parameters == gap_gmp + fc + conv3 + join + spatial
    assert cost.macs == fc + 32 * 3 + 30 * 2 + 30 * 2 * 9


def test_a_resnet_by_hand():
    """Width 8 on 16x16: the stem, three blocks of two convolutions, the classifier."""
    macs = 256 * 9 * 3 * 8
    macs += 256 * 9 * (8 * 8 + 8 * 8)
    macs += 64 * 9 * (8 * 16 + 16 * 16)
    macs += 16 * 9 * (16 * 32 + 32 * 32)
    macs += 32 * 10
    convs = 9 * (3 * 8 + 2 * 8 * 8 + 8 * 16 + 16 * 16 + 16 * 32 + 32 * 32)
    norms = 2 * (8 + 2 * (8 + 16 + 32))
    expected = Cost(parameters=convs + norms + 32 * 10 + 10, macs=macs)
    assert count_cost(SPEC.with_baseline("none"), (3, 16, 16)) == expected


@pytest.mark.parametrize("training", [False, True])
def test_counting_leaves_the_model_as_it_was(training: bool):
    network = SPEC.with_genotype("cov-fc-conv3-cov-gap-conv3x3").train(training)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    cost = count_cost(network, (3, 16, 16))
    assert network.training is training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert cost == count_cost(network, (3, 16, 16))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_image_has_the_precision_of_the_model(dtype: torch.dtype):
    network = SPEC.with_baseline("none")
    expected = count_cost(network, (3, 16, 16))
    assert count_cost(network.to(dtype), (3, 16, 16)) == expected
    assert measure_latency(network, (3, 16, 16), batch_size=1, min_seconds=0.01) > 0


class Slow(nn.Module):
    """Takes a known time; says what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: set[tuple[int, ...]] = set()
        self.modes: set[tuple[bool, bool]] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import time

        self.seen.add(tuple(x.shape))
        self.modes.add((self.training, torch.is_grad_enabled()))
        time.sleep(0.02)
        return x


def test_latency_is_the_milliseconds_of_one_inference_pass():
    model = Slow()
    latency = measure_latency(model, (3, 4, 5), batch_size=7, min_seconds=0.1)
    assert 20 <= latency < 60
    assert model.seen == {(7, 3, 4, 5)}
    assert model.modes == {(False, False)}
    assert not model.training  # as documented


def test_latency_leaves_the_global_generator_and_the_weights_alone():
    network = SPEC.with_genotype("cov-fc-conv3-cov-gap-conv3x3")
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = torch.get_rng_state()
    assert measure_latency(network, (3, 16, 16), batch_size=2, min_seconds=0.02) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
