"""The tables of the searches of a run, which grow with every search that ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from sase_ray.execution.observer import Observer
from sase_ray.results.folder import RunFolder
from sase_ray.results.history import SearchOutcome
from sase_ray.results.rows import (
    alpha_rows,
    curve_rows,
    ranking_rows,
    search_rows,
    trial_rows,
)
from sase_ray.results.search_id import SearchId
from search_spaces.space import SearchSpace


class ResultTables(Observer):
    """Observer that writes the tables of the searches that have ended so far.

    Each search is turned into frames once, at its end. Searches are in the order of the run,
    whichever ends first.

    Args:
        folder: Folder of the run.
        space: Search space, which names the operations of alpha.
        families: Family of each strategy by its label.
        searches: All searches of the run in their order.
    """

    def __init__(
        self,
        folder: RunFolder,
        space: SearchSpace,
        families: Mapping[str, str],
        searches: Sequence[SearchId],
    ) -> None:
        self.folder = folder
        self.space = space
        self.families = families
        self.searches = searches
        self._frames: dict[SearchId, dict[str, pd.DataFrame]] = {}

    def search_ended(self, search: SearchId, outcome: SearchOutcome) -> None:
        """Add a search to all tables.

        Raises:
            StorageError: A table cannot be written.
        """
        one = [outcome]
        rows = {
            "searches": search_rows(one),
            "trials": trial_rows(one, self.families),
            "curves": curve_rows(one),
            "alpha": alpha_rows(one, self.space),
            "rankings": ranking_rows(one),
        }
        frames = {name: pd.DataFrame(list(of_table)) for name, of_table in rows.items()}
        self._frames[search] = frames
        ended = [self._frames[other] for other in self.searches if other in self._frames]
        for name in frames:
            filled = [tables[name] for tables in ended if len(tables[name])]
            table = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()
            self.folder.write_frame(name, table)
