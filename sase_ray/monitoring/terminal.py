"""What the terminal shows while a comparison runs, and TensorBoard beside it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sase_ray.console import say
from trainables.metrics import find_metric

Row = dict[str, Any]
PLAIN_STEPS = 10
"""Without a terminal, a search is reported as it passes each of so many parts of its budget."""

SPEED_SECONDS = 600.0
"""What is left is estimated from the speed of this time."""

REDRAWS_PER_SECOND = 2


@dataclass
class _Search:
    """How far one search is. `best` is the metric of the incumbent and the incumbent."""

    samples: int = 0
    begun: bool = False
    ended: bool = False
    failed: bool = False
    reported: int = 0
    best: tuple[float, str] | None = None
    running: set[str] = field(default_factory=set)
    trials_ended: set[str] = field(default_factory=set)
    trials_failed: set[str] = field(default_factory=set)


class Display:
    """A line a strategy: share of the budget used, trials, incumbent; and when all will be done.

    On a terminal the lines are drawn anew; elsewhere (a job's log) plain lines come now and then.

    Args:
        console: where.
        searches: labels ``<strategy>/seed<seed>`` of all that will run.
        budget: of each search, in samples.
        metric: of the incumbent; a loss is better small, an accuracy large.
        finals: final trainings to come, as far as known.
        final_samples: training samples of each of them.
        clock: seconds.
    """

    def __init__(
        self,
        console: Console,
        searches: Sequence[str],
        budget: int,
        metric: str,
        finals: int = 0,
        final_samples: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console
        self.budget = budget
        self.metric = metric
        self.finals = finals
        self.final_samples = final_samples
        self.clock = clock
        self._began = clock()
        self._searches = {label: _Search() for label in searches}
        self._finals_ended = self._finals_failed = 0
        self._work: deque[tuple[float, float]] = deque()  # times, and samples done

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the lines while the block runs."""
        if not self.console.is_terminal:
            yield
            return
        # Called from a thread that redraws.
        with Live(
            get_renderable=self.render,
            console=self.console,
            refresh_per_second=REDRAWS_PER_SECOND,
        ):
            yield

    def search_began(self, label: str) -> None:
        """Hear of a search's beginning; it may begin again."""
        search = self._searches[label]
        search.running.clear()
        if not search.begun:
            search.begun = True
            self._plain(f"search {label}: begins, budget {self.budget:,} samples")

    def trial_began(self, label: str, trial: str) -> None:
        """Hear of a trial's beginning; it may begin again."""
        self._searches[label].running.add(trial)

    def evaluated(self, label: str, row: Row) -> None:
        """Hear of an evaluation."""
        search = self._searches[label]
        self._take(search, row)
        share = search.samples / self.budget
        step = search.samples * PLAIN_STEPS // self.budget
        if step > search.reported:
            search.reported = step
            value = f"{self.metric} {row[f'incumbent_{self.metric}']:.4f}"
            line = f"search {label}: {share:.0%} of the budget, {value}  {row['incumbent']}"
            self._plain(f"{line}; {self._left()}")

    def trial_ended(self, label: str, trial: str, reason: str | None) -> None:
        """Hear of a trial's end, and the reason if it failed."""
        search = self._searches[label]
        search.running.discard(trial)
        search.trials_ended.add(trial)
        if reason is not None:
            search.trials_failed.add(trial)

    def remembered(self, label: str, rows: Iterable[Row]) -> None:
        """Take in the evaluations of a search that had ended before the run was interrupted."""
        for row in rows:
            self._take(self._searches[label], row)
            self._searches[label].trials_ended.add(row["trial"])
        self._work.clear()  # that was not done in this time

    def search_ended(self, label: str, answer: str, *, failed: bool = False) -> None:
        """Hear of a search's end: its answer, or why it failed."""
        search = self._searches[label]
        search.ended, search.failed = True, failed
        search.running.clear()
        self._advance()
        self._plain(f"search {label}: {'failed: ' if failed else 'ended with '}{answer}")

    def finals_are(self, count: int) -> None:
        """Hear how many final trainings there are, now that all are known."""
        self.finals = count
        self._advance()

    def final_ended(self, module: str, *, failed: bool = False) -> None:
        """Count a final training. Its accuracy is shown in the table only, once all are done."""
        self._finals_ended += 1
        self._finals_failed += failed
        self._advance()
        how = "failed: " if failed else ""
        count = f"{self._finals_ended} of {self.finals}"
        self._plain(f"final training {count}: {how}{module}; {self._left()}")

    @property
    def seconds(self) -> float:
        """Since this display began."""
        return self.clock() - self._began

    def numbers(self) -> Mapping[str, float]:
        """Return what is shown, as numbers by name; without an estimate, no minutes are left."""
        searches = self._searches.values()
        numbers = {
            "budget used": self._used(searches),
            "searches ended": sum(search.ended for search in searches),
            "trials running": sum(len(search.running) for search in searches),
            "trials ended": sum(len(search.trials_ended) for search in searches),
            "failures": self._failures,
            "final trainings ended": self._finals_ended,
        }
        for strategy, own in self._by_strategy().items():
            numbers[f"budget used by {strategy}"] = self._used(own)
        left = self._seconds_left()
        return numbers if left is None else numbers | {"minutes left": left / 60}

    def render(self) -> RenderableType:
        """Draw a line a strategy, and below it the final trainings and the time."""
        right = {"justify": "right", "no_wrap": True}
        table = Table(box=None, pad_edge=False, expand=True, header_style="dim")
        table.add_column("strategy", no_wrap=True)
        table.add_column("budget", width=10)
        for head in ("", "ended", "trials", "run", "fail", self.metric):
            table.add_column(head, **right)  # type: ignore[arg-type]
        table.add_column("incumbent", no_wrap=True, overflow="ellipsis", ratio=1)
        for strategy, searches in self._by_strategy().items():
            used = self._used(searches)
            best = min((s.best for s in searches if s.best), key=self._order, default=None)
            failed = sum(len(s.trials_failed) + s.failed for s in searches)
            table.add_row(
                Text(strategy),
                ProgressBar(total=1.0, completed=used),
                f"{used:.0%}",
                f"{sum(s.ended for s in searches)}/{len(searches)}",
                str(sum(len(s.trials_ended) for s in searches)),
                str(sum(len(s.running) for s in searches)),
                Text(str(failed), style="red" if failed else ""),
                "" if best is None else f"{best[0]:.4f}",
                Text("" if best is None else best[1]),
            )
        if self.finals:
            table.add_row(
                Text("final"),
                ProgressBar(total=self.finals, completed=self._finals_ended),
                f"{self._finals_ended / self.finals:.0%}",
                f"{self._finals_ended}/{self.finals}",
            )
        spent = timedelta(seconds=round(self.seconds))
        failures = Text(f"{self._failures} failed", style="red" if self._failures else "")
        return Group(table, Text(f"{spent} passed, {self._left()}, ").append_text(failures))

    def _take(self, search: _Search, row: Row) -> None:
        search.samples = row["search_samples"]
        search.best = row[f"incumbent_{self.metric}"], row["incumbent"]
        if row.get("diverged"):
            search.trials_failed.add(row["trial"])
        self._advance()

    def _order(self, best: tuple[float, str]) -> float:
        return find_metric(self.metric).sign * best[0]

    def _by_strategy(self) -> dict[str, list[_Search]]:
        found: dict[str, list[_Search]] = {}
        for label, search in self._searches.items():
            found.setdefault(label.rpartition("/seed")[0], []).append(search)
        return found

    def _used(self, searches: Iterable[_Search]) -> float:
        shares = [1.0 if s.ended else min(1.0, s.samples / self.budget) for s in searches]
        return sum(shares) / len(shares)

    @property
    def _failures(self) -> int:
        searches = self._searches.values()
        return self._finals_failed + sum(len(s.trials_failed) + s.failed for s in searches)

    @property
    def _done(self) -> float:
        """Samples, a search that has ended counting in full."""
        used = self._used(self._searches.values()) * len(self._searches) * self.budget
        return used + self._finals_ended * self.final_samples

    def _advance(self) -> None:
        now = self.clock()
        self._work.append((now, self._done))
        while now - self._work[0][0] > SPEED_SECONDS and len(self._work) > 2:
            self._work.popleft()

    def _seconds_left(self) -> float | None:
        """Estimate the time for the samples to come; None if nothing is known of the speed.

        The speed is that since the first evaluation, so that the time to start up does not count.
        """
        if not self._work:
            return None
        then, before = self._work[0]
        passed, gained = self.clock() - then, self._done - before
        total = len(self._searches) * self.budget + self.finals * self.final_samples
        return (total - self._done) * passed / gained if passed > 0 and gained > 0 else None

    def _left(self) -> str:
        left = self._seconds_left()
        if left is None:
            return "time left not known yet"
        if left == 0:
            return "all done"
        return f"about {timedelta(seconds=round(left))} left"

    def _plain(self, line: str) -> None:
        if not self.console.is_terminal:
            say(self.console, line)
