"""Progress of a comparison, as the terminal and TensorBoard show it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sase_ray.console import say
from sase_ray.execution.observer import Observer
from sase_ray.results.history import Row, SearchOutcome
from sase_ray.results.search_id import SearchId
from trainables.metrics import find_metric

PLAIN_STEPS = 10
"""Number of reports of a search without a terminal: one per 10% of its budget."""

SPEED_SECONDS = 600.0
"""Window of time from whose speed the time left is estimated."""

REDRAWS_PER_SECOND = 2


@dataclass
class _Search:
    """The progress of one search. `best` is the metric of the incumbent and the incumbent."""

    samples: int = 0
    begun: bool = False
    ended: bool = False
    failed: bool = False
    reported: int = 0
    best: tuple[float, str] | None = None
    running: set[str] = field(default_factory=set)
    trials_ended: set[str] = field(default_factory=set)
    trials_failed: set[str] = field(default_factory=set)


class Display(Observer):
    """One line per strategy (share of budget used, trials, incumbent), and the time left for all.

    On a terminal the lines are redrawn; elsewhere (a job's log) plain lines are printed at times.

    Args:
        console: Console to print on.
        searches: All searches that will run.
        budget: Budget of each search, in samples.
        metrics: Metric of the incumbent by the label of the strategy.
        finals: Number of final trainings to come, as far as known.
        final_samples: Training samples of each of them.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        console: Console,
        searches: Sequence[SearchId],
        budget: int,
        metrics: Mapping[str, str],
        finals: int = 0,
        final_samples: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console
        self.budget = budget
        self.metrics = metrics
        self.finals = finals
        self.final_samples = final_samples
        self.clock = clock
        self._began = clock()
        self._searches = {search: _Search() for search in searches}
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

    def search_began(self, search: SearchId) -> None:
        """Show that a search began; it may begin again."""
        state = self._searches[search]
        state.running.clear()
        if not state.begun:
            state.begun = True
            self._plain(f"search {search}: begins, budget {self.budget:,} samples")

    def trial_began(self, search: SearchId, trial: str) -> None:
        """Count a trial as running; it may begin again."""
        self._searches[search].running.add(trial)

    def evaluated(self, search: SearchId, row: Row) -> None:
        """Show an evaluation."""
        state = self._searches[search]
        self._take(search, row)
        share = state.samples / self.budget
        step = state.samples * PLAIN_STEPS // self.budget
        if step > state.reported:
            state.reported = step
            metric = self.metrics[search.label]
            value = f"{metric} {row[f'incumbent_{metric}']:.4f}"
            line = f"search {search}: {share:.0%} of the budget, {value}  {row['incumbent']}"
            self._plain(f"{line}; {self._left()}")

    def trial_ended(self, search: SearchId, trial: str, reason: str | None) -> None:
        """Count a trial as ended, or as failed if there is a reason."""
        state = self._searches[search]
        state.running.discard(trial)
        state.trials_ended.add(trial)
        if reason is not None:
            if not state.trials_failed:
                self.noted(f"search {search}: trial {trial} failed: {reason}")
            state.trials_failed.add(trial)

    def search_recalled(self, search: SearchId, outcome: SearchOutcome) -> None:
        """Take the evaluations of a search that had ended before the run was interrupted."""
        for row in outcome.history.evaluations:
            self._take(search, row)
            self._searches[search].trials_ended.add(row["trial"])
        self._work.clear()  # that work was not done in this time

    def search_ended(self, search: SearchId, outcome: SearchOutcome) -> None:
        """Show the answer of a search."""
        self._end(search)
        self._plain(f"search {search}: ended with {outcome.genotype}")

    def search_failed(self, search: SearchId, reason: str) -> None:
        """Show why a search failed."""
        self._searches[search].failed = True
        self._end(search)
        self._plain(f"search {search}: failed: {reason}")

    def _end(self, search: SearchId) -> None:
        self._searches[search].ended = True
        self._searches[search].running.clear()
        self._advance()

    def finals_known(self, count: int) -> None:
        """Take the number of final trainings, now that all are known."""
        self.finals = count
        self._advance()

    def final_ended(self, module: str, failed: bool) -> None:
        """Count a final training. Its accuracy is shown in the table only, once all are done."""
        self._finals_ended += 1
        self._finals_failed += failed
        self._advance()
        how = "failed: " if failed else ""
        count = f"{self._finals_ended} of {self.finals}"
        self._plain(f"final training {count}: {how}{module}; {self._left()}")

    def noted(self, text: str) -> None:
        """Print a sentence."""
        say(self.console, text)

    @property
    def seconds(self) -> float:
        """Seconds since this display began."""
        return self.clock() - self._began

    def progress(self) -> tuple[float, Mapping[str, float]]:
        """Return the seconds since this display began, and its numbers."""
        return self.seconds, self.numbers()

    def numbers(self) -> Mapping[str, float]:
        """Return the numbers shown by name; without an estimate, minutes left are missing."""
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
        """Draw one line per strategy, and below them the final trainings and the time."""
        right = {"justify": "right", "no_wrap": True}
        table = Table(box=None, pad_edge=False, expand=True, header_style="dim")
        table.add_column("strategy", no_wrap=True)
        table.add_column("budget", width=10)
        same = len({*self.metrics.values()}) == 1
        best_is = next(iter(self.metrics.values())) if same else "best"
        for head in ("", "ended", "trials", "run", "fail", best_is):
            table.add_column(head, **right)  # type: ignore[arg-type]
        table.add_column("incumbent", no_wrap=True, overflow="ellipsis", ratio=1)
        for strategy, searches in self._by_strategy().items():
            used = self._used(searches)
            metric = self.metrics[strategy]
            sign = find_metric(metric).sign
            known = [search.best for search in searches if search.best]
            best = min(known, key=lambda pair: sign * pair[0], default=None)
            value = "" if best is None else f"{best[0]:.4f}"
            failed = sum(len(s.trials_failed) + s.failed for s in searches)
            table.add_row(
                Text(strategy),
                ProgressBar(total=1.0, completed=used),
                f"{used:.0%}",
                f"{sum(s.ended for s in searches)}/{len(searches)}",
                str(sum(len(s.trials_ended) for s in searches)),
                str(sum(len(s.running) for s in searches)),
                Text(str(failed), style="red" if failed else ""),
                value if same or best is None else f"{metric} {value}",
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

    def _take(self, search: SearchId, row: Row) -> None:
        state = self._searches[search]
        state.samples = row["search_samples"]
        state.best = row[f"incumbent_{self.metrics[search.label]}"], row["incumbent"]
        if row.get("diverged"):
            state.trials_failed.add(row["trial"])
        self._advance()

    def _by_strategy(self) -> dict[str, list[_Search]]:
        found: dict[str, list[_Search]] = {}
        for search, state in self._searches.items():
            found.setdefault(search.label, []).append(state)
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
        """Number of samples done; a search that has ended counts in full."""
        used = self._used(self._searches.values()) * len(self._searches) * self.budget
        return used + self._finals_ended * self.final_samples

    def _advance(self) -> None:
        now = self.clock()
        self._work.append((now, self._done))
        while now - self._work[0][0] > SPEED_SECONDS and len(self._work) > 2:
            self._work.popleft()

    def _seconds_left(self) -> float | None:
        """Estimate the time for the remaining samples; None if the speed is unknown.

        The speed is measured from the first evaluation, so that the start-up time does not count.
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
