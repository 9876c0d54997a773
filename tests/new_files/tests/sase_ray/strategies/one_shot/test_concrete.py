"""Mixtures drawn from the concrete distribution have the frequencies of the softmax."""

from __future__ import annotations

import pytest
import torch


def test_the_largest_weight_is_as_frequent_as_its_probability(start_algorithm) -> None:
    algorithm, _ = start_algorithm("concrete", temperature=0.5)
    with torch.no_grad():
        algorithm.alpha[0].copy_(torch.tensor([1.0, 0.0, -1.0]))
    draws = [int(algorithm.mixture().edges[0].argmax()) for _ in range(3000)]
    expected = torch.softmax(torch.tensor([1.0, 0.0, -1.0]), 0)
    for choice in range(3):
        assert draws.count(choice) / 3000 == pytest.approx(float(expected[choice]), abs=0.03)
