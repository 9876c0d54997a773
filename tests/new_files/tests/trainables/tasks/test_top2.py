"""Two guesses against a count by hand."""

from __future__ import annotations

import pytest
import torch

from trainables.tasks.catalogue import make_task


def test_the_two_largest_outputs_are_guesses() -> None:
    task = make_task("top2")
    outputs = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [2.0, 1.0, 3.0]])
    targets = torch.tensor([2, 1, 0])
    sums = task.tally(outputs, targets)
    measured = task.measure(sums.tolist(), 3)
    assert measured["top2"] == pytest.approx(2 / 3)
    exponents = outputs.double().exp()
    chosen = exponents[range(3), targets] / exponents.sum(1)
    assert measured["loss"] == pytest.approx(float(-chosen.log().mean()))
    assert float(task.reward(outputs, targets)) == pytest.approx(2 / 3)
