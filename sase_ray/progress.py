"""What the terminal shows while a comparison runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sase_ray.printing import say

Row = dict[str, Any]
PLAIN_STEP = 0.1
"""Without a terminal, a search is reported each time it has used this much more of its budget."""


class Display:
    """One line a search: share of the budget used, incumbent, its metric.

    On a terminal the lines are bars that are drawn anew; elsewhere (a job's log) plain lines come
    now and then.
    """

    def __init__(self, console: Console, budget: int, metric: str) -> None:
        self.console = console
        self.budget = budget
        self.metric = metric
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._reported: dict[str, float] = {}
        self._finals = 0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the lines while the block runs."""
        with self._bars:
            yield

    def search_began(self, name: str) -> None:
        """Add the line of a search; it may begin again."""
        if name in self._tasks:
            return
        self._tasks[name] = self._bars.add_task(f"search {name}", total=self.budget, note="")
        self._reported[name] = 0.0
        self._plain(f"search {name}: begins, budget {self.budget:,} samples")

    def evaluated(self, name: str, row: Row) -> None:
        """Move a search's line on."""
        value = row[f"incumbent_{self.metric}"]
        note = f"{self.metric} {value:.4f}  {row['incumbent']}"
        self._bars.update(self._tasks[name], completed=row["search_samples"], note=note)
        share = row["search_samples"] / self.budget
        if share - self._reported[name] >= PLAIN_STEP:
            self._reported[name] = share
            self._plain(f"search {name}: {share:.0%} of the budget, {note}")

    def search_ended(self, name: str, answer: str) -> None:
        """End a search's line with its answer."""
        self._bars.update(self._tasks[name], completed=self.budget, note=f"→ {answer}")
        self._plain(f"search {name}: ended with {answer}")

    def finals_grew(self, count: int) -> None:
        """Tell that final trainings were added."""
        if "final" not in self._tasks:
            self._tasks["final"] = self._bars.add_task("final training", total=0, note="")
        self._finals += count
        self._bars.update(self._tasks["final"], total=self._finals)

    def final_ended(self, done: int, module: str) -> None:
        """Count a final training. Its accuracy is shown in the table only, once all are done."""
        self._bars.update(self._tasks["final"], completed=done, note=module)
        self._plain(f"final training {done} of {self._finals}: {module}")

    def _plain(self, line: str) -> None:
        if not self.console.is_terminal:
            say(self.console, line)
