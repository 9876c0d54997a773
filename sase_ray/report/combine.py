"""Combination of several runs into one report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from sase_ray.analysis.outcomes import final_column, final_metric
from sase_ray.results.load import Run
from sase_ray.results.schema import TABLES
from search_spaces.errors import UserError

MOST_MODULES = 60
"""Maximum number of strategies and baselines in a report."""


SEPARATOR = " · "
"""Separator of a run's name and its strategy's, if several runs are compared."""


def check_size(run: Run) -> None:
    """Check that a run has as many modules as a page can show.

    Raises:
        UserError: It has more than `MOST_MODULES`.
    """
    tables = {"strategies": "name", "final": "name", "searches": "strategy", "curves": "strategy"}
    for table, column in tables.items():
        found = getattr(run, table)[column].nunique()
        if found > MOST_MODULES:
            raise UserError(
                f"{run.path} has {found:,} strategies in {table}.parquet: a report shows at most "
                f"{MOST_MODULES}"
            )


def combine(runs: Sequence[Run]) -> Run:
    """Combine runs into one, with every strategy labelled by its run.

    A single run is returned unchanged. The strategies of the result are those of the runs, best
    first.
    """
    if len(runs) == 1:
        return runs[0]
    labels = labels_of(runs)
    tables = {}
    for table in TABLES:
        parts: list[pd.DataFrame] = []
        for run, label in zip(runs, labels, strict=True):
            frame = getattr(run, table)
            columns = [c for c in ("name", "strategy", "module") if c in frame]
            changed = {columns[0]: label + SEPARATOR + frame[columns[0]]}
            if "seed" in frame:  # seeds of two runs have nothing in common
                changed["seed"] = frame["seed"] + 10**6 * len(parts)
            parts.append(frame.assign(**changed))
        filled = [part for part in parts if len(part)]
        tables[table] = pd.concat(filled, ignore_index=True) if filled else parts[0]
    tables["strategies"] = tables["strategies"].sort_values(
        final_column(runs[0]),
        ascending=final_metric(runs[0]).direction == "min",
        kind="stable",
        ignore_index=True,
    )
    return replace(runs[0], **tables)


def labels_of(runs: Sequence[Run]) -> list[str]:
    """Return a name for each run: its folder's, with a number if two are the same."""
    names = [run.name for run in runs]
    return [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


SAME = (
    "dataset", "data", "backbone", "space", "task", "host", "planted", "final", "metric", "budget",
    "seeds", "proxy",
)  # fmt: skip
"""Settings in which runs are checked for differences."""


def settings_alike(runs: Sequence[Run]) -> list[str]:
    """Return the settings of `SAME` that all runs share; a task includes its final metric."""

    def setting(run: Run, key: str) -> str:
        of_task = ("classification", final_column(run)) if key == "task" else (None,)
        return repr((run.config.get(key, of_task[0]), *of_task[1:]))

    return [key for key in SAME if len({setting(run, key) for run in runs}) == 1]
