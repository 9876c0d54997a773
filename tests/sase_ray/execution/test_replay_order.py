"""What a resumed search remembers is heard in the order in which it was heard first."""

from __future__ import annotations

import asyncio
import random

import pytest

from sase_ray.execution import replay_order
from sase_ray.execution.replay_order import Order


def run(order, trials, shuffle):
    """Let trials report their epochs side by side; return the order in which they were heard."""
    heard = []

    async def trial(keeper, name, epochs):
        for epoch in range(1, epochs + 1):
            remembered = (name, epoch) in order
            await asyncio.sleep(shuffle.random() / 1000)
            await keeper.wait((name, epoch) if remembered else None)
            heard.append((name, epoch))
            await keeper.hear((name, epoch))

    async def all_trials():
        keeper = Order(order)
        await asyncio.gather(*(trial(keeper, name, n) for name, n in trials.items()))

    asyncio.run(asyncio.wait_for(all_trials(), 30))
    return heard


@pytest.mark.parametrize("seed", range(20))
def test_remembered_results_come_first_and_in_their_order(seed):
    shuffle = random.Random(seed)
    trials = {"a": 4, "b": 3, "c": 5}
    # Any order in which each trial's epochs follow one another.
    names = [name for name, epochs in trials.items() for _ in range(epochs - 1)]
    shuffle.shuffle(names)
    order = [(name, names[: i + 1].count(name)) for i, name in enumerate(names)]
    heard = run(order, trials, shuffle)
    assert heard[: len(order)] == order
    assert sorted(heard[len(order) :]) == [("a", 4), ("b", 3), ("c", 5)]


def test_a_search_that_goes_another_way_is_not_held_up(monkeypatch):
    monkeypatch.setattr(replay_order, "PATIENCE_SECONDS", 0.05)
    heard = run([("a", 1), ("gone", 1), ("a", 2)], {"a": 3}, random.Random(0))
    assert heard == [("a", 1), ("a", 2), ("a", 3)]
