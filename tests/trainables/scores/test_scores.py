"""Training-free scores against formulas in float64; every score leaves its network as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from search_spaces.errors import UserError
from search_spaces.network import NetworkSpec
from trainables.metrics import is_declared
from trainables.scores.catalogue import make_score
from trainables.scores.grad_norm import GradNorm
from trainables.scores.parameters import Parameters
from trainables.scores.registry import SCORES
from trainables.tasks.classification import CLASSIFICATION

NETWORK = NetworkSpec("resnet8", 10, 1, (8, 8), {"width": 4})


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, 1, 8, 8, generator=generator), torch.arange(16) % 10


def test_grad_norm_is_the_sum_of_the_layers_norms() -> None:
    """Against the gradients of a network with one hidden layer, by hand."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 10)).double()
    images, labels = _batch()
    images = images.double()
    x = images.flatten(1).numpy()
    first, second = network[1], network[3]
    hidden = x @ first.weight.detach().numpy().T + first.bias.detach().numpy()
    active = np.maximum(hidden, 0)
    logits = active @ second.weight.detach().numpy().T + second.bias.detach().numpy()
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    at_logits = (p - np.eye(10)[labels.numpy()]) / len(x)
    at_hidden = (at_logits @ second.weight.detach().numpy()) * (hidden > 0)
    expected = np.linalg.norm(at_logits.T @ active) + np.linalg.norm(at_hidden.T @ x)
    score = GradNorm().compute(network, images, labels, CLASSIFICATION)
    assert score == pytest.approx(expected, rel=1e-10)


def test_parameters_are_counted() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
    network[1].bias.requires_grad_(False)
    images, labels = _batch()
    assert Parameters().compute(network, images, labels, CLASSIFICATION) == 64 * 10 + 20
    assert Parameters().samples(16) == 0
    assert GradNorm().samples(16) == 16


@pytest.mark.parametrize("name", SCORES)
def test_every_score_leaves_its_network_as_it_was(name: str) -> None:
    score = make_score(name)
    network = NETWORK.with_genotype("gap-fc-affine-gap-gap-conv3x3").eval()
    frozen = next(network.parameters())
    frozen.requires_grad_(False)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    drawn = torch.get_rng_state()
    images, labels = _batch()
    first = score.compute(network, images, labels, CLASSIFICATION)
    assert np.isfinite(first)
    assert score.compute(network, images, labels, CLASSIFICATION) == first
    assert not any(module.training for module in network.modules())
    assert not frozen.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert is_declared(score.metric.name)
    assert score.metric.mode is not None
    assert score.name == name
    assert score.summary
    assert score.source
    assert score.passes >= 0


def test_an_unknown_score_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match="unknown score 'gradnorm': did you mean 'grad-norm'"):
        make_score("gradnorm")
    with pytest.raises(UserError, match="unknown key 'eps'"):
        make_score("grad-norm", {"eps": 1})
