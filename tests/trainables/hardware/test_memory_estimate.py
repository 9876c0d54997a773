"""The memory of a training step, against what can be counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from search_spaces.genotype import PUBLISHED
from search_spaces.network import NetworkSpec
from search_spaces.ops.kernels.mode import fused
from trainables.hardware.memory_estimate import training_footprint

FLOAT = 4


@pytest.mark.parametrize(("optimizer", "copies"), [("sgd", 3), ("adamw", 4)])
@pytest.mark.parametrize("batch", [2, 7, 64])
def test_a_small_network_counted_by_hand(optimizer, copies, batch):
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False)
    )
    parameters = 12 * 5 + 5 * 3
    # Saved are the input of each linear layer; the ReLU's output is that of the second.
    saved = 12 + 5
    counted = training_footprint(network, (3, 2, 2), batch, optimizer)
    assert counted == FLOAT * (copies * parameters + batch * saved)


def test_it_grows_with_the_batch_and_with_the_host():
    spec = NetworkSpec("resnet20", 10, 3, (32, 32))
    network = spec.with_genotype(PUBLISHED)
    small, large = (training_footprint(network, (3, 32, 32), b, "sgd") for b in (64, 256))
    assert 3.5 < large / small < 4
    assert training_footprint(spec.build(), (3, 32, 32), 64, "sgd") < small


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_takes_about_as_much_of_a_gpu():
    spec = NetworkSpec("resnet20", 10, 3, (32, 32))
    counted = training_footprint(spec.with_genotype(PUBLISHED), (3, 32, 32), 512, "sgd")
    before = torch.cuda.memory_allocated()
    network = spec.with_genotype(PUBLISHED).cuda()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        optimizer.zero_grad()
        with fused():
            loss = network(torch.randn(512, 3, 32, 32, device="cuda")).sum()
        loss.backward()
        optimizer.step()
    assert 0.7 < (torch.cuda.max_memory_allocated() - before) / counted < 1.3
