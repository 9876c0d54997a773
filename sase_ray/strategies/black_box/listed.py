"""Study that trains listed genotypes, each with several seeds."""

from __future__ import annotations

from dataclasses import replace

from sase_ray.strategies.black_box.grid import GridSearch
from sase_ray.strategies.contract import Plan, SearchTask
from trainables.proxy.instrumented import StudiedTrainable


class ListedStudy(GridSearch):
    """A list of genotypes, trained as by `grid`, with more measurements of each."""

    def plan(self, task: SearchTask) -> Plan:
        """Return the plan of the grid, with `StudiedTrainable` instead of `ProxyTrainable`."""
        return replace(super().plan(task), trainable=StudiedTrainable)
