"""The order of past results in a resumed search, which is that of their first arrival."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

PATIENCE_SECONDS = 60.0
"""Time without the next result after which a search has left its earlier course."""

Turn = tuple[str, int]
"""A trial and an epoch."""


class Order:
    """A gate that lets trials report in a given order, and everything else after it.

    A searcher or a scheduler gets the results of trials side by side in the order of their
    reports; a resumed search that got them in another order would decide differently.

    Args:
        order: Trials and epochs in the order in which they were reported.
    """

    def __init__(self, order: Sequence[Turn]) -> None:
        self.order = [tuple(turn) for turn in order]
        self.heard = 0
        self._changed = asyncio.Condition()

    async def wait(self, turn: Turn | None) -> None:
        """Wait until a past result may be reported; None stands for a new result."""
        async with self._changed:
            while not self._may_go(turn):
                before = self.heard
                try:
                    await asyncio.wait_for(self._changed.wait(), PATIENCE_SECONDS)
                except TimeoutError:
                    if self.heard == before:  # no trial will report the next result
                        self.heard = len(self.order)
                        self._changed.notify_all()

    def _may_go(self, turn: Turn | None) -> bool:
        if self.heard >= len(self.order):
            return True
        return turn is not None and tuple(turn) == self.order[self.heard]

    async def hear(self, turn: Turn) -> None:
        """Note that a result has reached the search."""
        async with self._changed:
            if self.heard < len(self.order) and tuple(turn) == self.order[self.heard]:
                self.heard += 1
                self._changed.notify_all()


def keeper_of(order: Sequence[Turn]) -> Any:
    """Return an actor that keeps an order."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0)(Order)
    return actor.options(max_concurrency=1000, scheduling_strategy=here).remote(order)
