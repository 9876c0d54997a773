"""The gradient with respect to the images against the formula of a linear network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainables.scores.catalogue import make_score
from trainables.tasks.classification import CLASSIFICATION


def test_of_a_linear_network_it_is_the_weights_times_the_error() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    images = torch.randn(5, 1, 2, 2, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 0, 1])
    error = torch.softmax(network(images), 1) - nn.functional.one_hot(targets, 3)
    expected = (error @ network[1].weight / 5).norm()
    score = make_score("input-grad").compute(network, images, targets, CLASSIFICATION)
    assert score == pytest.approx(float(expected), rel=1e-10)
