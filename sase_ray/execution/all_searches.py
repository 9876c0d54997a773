"""The searches of a run: every strategy with every seed, side by side on one Ray cluster."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from sase_ray.cluster.connection import connected
from sase_ray.cluster.slots import Slots
from sase_ray.console import say
from sase_ray.execution.event_queue import Board, Note
from sase_ray.execution.experiment import Setup
from sase_ray.execution.failures import check_storage, reason
from sase_ray.execution.journal import Journal, Past
from sase_ray.execution.one_search import train_host_on
from sase_ray.execution.search_actor import SearchProcess
from sase_ray.monitoring.observers import PROGRESS_SECONDS
from sase_ray.monitoring.tensorboard_live import TensorBoardLogs
from sase_ray.monitoring.terminal import Display
from sase_ray.results.folder import RunFolder
from sase_ray.results.history import SearchOutcome
from sase_ray.strategies import Strategy
from trainables.persistence.resumable import Memory
from trainables.persistence.store import StorageError, Store

POLL_SECONDS = 0.5

MAX_RESTARTS = 5
"""How often a search whose own process died, with its node perhaps, is begun again."""


def label_of(strategy: str, seed: int) -> str:
    """Return the name of one search of a run."""
    return f"{strategy}/seed{seed}"


@dataclass(frozen=True)
class Interrupted:
    """A run to go on with.

    Attributes:
        folder: of its results.
        concurrency: trials that each of its searches runs at once.
    """

    folder: RunFolder
    concurrency: int


@contextmanager
def started(
    setup: Setup,
    console: Console | None,
    about: Mapping[str, Any],
    interrupted: Interrupted | None = None,
) -> Iterator[Searches]:
    """Join the cluster and begin a run, or go on with one.

    A run that comes to its end leaves nothing but its results; of one that is interrupted,
    everything that it needs to go on is kept.

    Args:
        setup: what to search, and by which strategies.
        console: where progress goes; standard output if None.
        about: what the run is, for the record: its `kind`, and what else it was called with.
        interrupted: the run to go on with; None begins one.

    Raises:
        UserError: there is no such cluster, it has no room for the workers of a final training,
            the results folder exists, or somebody else is at it.
    """
    console = console or Console()
    searches = None

    def tell() -> None:
        if searches is not None:
            folder = searches.folder
            run = folder.storage.place if folder.storage else folder.path
            say(console, f"what has been done is kept; to go on: sase-ray resume {run}")

    try:
        with connected(setup.config.resources, tell, setup.footprints) as slots:
            if about["kind"] == "compare":
                slots.check_workers(setup.config.final.workers)
            searches = Searches.start(setup, slots, console, about, interrupted)
            yield searches
        searches.folder.finish()
    except (KeyboardInterrupt, StorageError, RayError):
        tell()
        raise
    finally:
        if searches is not None:  # the workers, which wrote there, have ended
            searches.logs.close()
            searches.folder.unlock()


@dataclass
class Searches:
    """The searches of one run under way.

    Attributes:
        setup: what to search, and by which strategies.
        slots: how the cluster is shared.
        folder: where the tables are written.
        display: where progress is shown.
        logs: TensorBoard's.
        journal: what a resume reads.
        concurrency: trials that each search runs at once.
        outcomes: the searches that ended well.
        failures: label to reason, of the others.
    """

    setup: Setup
    slots: Slots
    folder: RunFolder
    display: Display
    logs: TensorBoardLogs
    journal: Journal
    concurrency: int
    outcomes: list[SearchOutcome] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seeds = range(self.setup.config.seeds)
        self._tasks = {seed: self.setup.task(seed) for seed in seeds}
        self._references = {seed: ray.put(task) for seed, task in self._tasks.items()}
        self._hosts: dict[int, Any] = {}
        self._pasts: dict[str, Past] = {}
        self._restarts: dict[str, int] = {}
        self._actors: dict[str, Any] = {}
        self._progress_logged = -PROGRESS_SECONDS
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # With the driver: what it hears must not be lost with another node.
        self._board: Any = ray.remote(num_cpus=0)(Board).options(scheduling_strategy=here).remote()

    @classmethod
    def start(
        cls,
        setup: Setup,
        slots: Slots,
        console: Console,
        about: Mapping[str, Any],
        interrupted: Interrupted | None = None,
    ) -> Searches:
        """Make the results folder and write the configuration, or take up those of a run."""
        config = setup.config
        labels = [label_of(name, s) for s in range(config.seeds) for name in setup.strategies]
        if interrupted is None:
            concurrency = slots.share(len(labels))
            folder = RunFolder.create(config)
            folder.lock()
            final_seeds = {seed: list(setup.final_seeds(seed)) for seed in range(config.seeds)}
            folder.begin(
                config,
                {
                    **about,
                    "splits": setup.search_data.splits,
                    "final_splits": setup.final_data.splits,
                    "searches": labels,
                    "final_seeds": final_seeds,
                    "trials_at_once": concurrency,
                },
            )
        else:
            folder, concurrency = interrupted.folder, interrupted.concurrency
            folder.lock()
            shutil.rmtree(folder.tensorboard, ignore_errors=True)  # it is written again
            Store(folder.tune_storage).remove()
        say(console, f"results in {folder.path}")
        return cls(
            setup,
            slots,
            folder,
            cls._display(setup, console, labels, about["kind"]),
            TensorBoardLogs(folder.tensorboard, setup.space),
            Journal(folder.state),
            concurrency,
        )

    @staticmethod
    def _display(setup: Setup, console: Console, labels: Sequence[str], kind: str) -> Display:
        config = setup.config
        modules = len(config.strategies) + len(config.baselines)
        return Display(
            console,
            labels,
            config.budget,
            config.metric,
            finals=modules * config.seeds * config.final.seeds if kind == "compare" else 0,
            final_samples=config.final.epochs * len(setup.final_data.train),
        )

    def log_progress(self, *, now: bool = True) -> None:
        """Tell TensorBoard how far the run is; without `now` only if that was a while ago."""
        seconds = self.display.seconds
        if now or seconds - self._progress_logged >= PROGRESS_SECONDS:
            self._progress_logged = seconds
            self.logs.log_progress(self.display.numbers(), round(seconds))

    @property
    def families(self) -> dict[str, str]:
        """Each strategy's family."""
        return {name: strategy.family for name, strategy in self.setup.strategies.items()}

    def run_all(self, on_outcome: Callable[[SearchOutcome], None] = lambda outcome: None) -> None:
        """Run every strategy with every seed.

        Args:
            on_outcome: called with each search that ends well, as it ends.

        Raises:
            StorageError: what is seen cannot be kept.
        """
        # One-shot searches cannot be spread over trials, so they begin first.
        order = sorted(self.setup.strategies.values(), key=lambda s: s.family != "one-shot")
        waiting = [(strategy, seed) for seed in self._tasks for strategy in order]
        running: dict[Any, tuple[Strategy, int]] = {}
        try:
            while waiting or running:
                while waiting and self.slots.has_room_for(len(running) + 1, self.concurrency):
                    strategy, seed = waiting.pop(0)
                    label = label_of(strategy.label, seed)
                    self.display.search_began(label)
                    outcome = self.journal.outcome(label)
                    if outcome is None:
                        running[self._begin(strategy, seed)] = strategy, seed
                    else:  # it had ended before the run was interrupted
                        for row in outcome.history.evaluations:
                            self.logs.log_evaluation(strategy.label, seed, row)
                        self.display.remembered(label, outcome.history.evaluations)
                        self._keep(outcome, on_outcome)
                ended, _ = ray.wait(list(running), timeout=POLL_SECONDS) if running else ([], [])
                self._hear(ray.get(self._board.take.remote()))
                self.log_progress(now=False)
                for future in ended:
                    strategy, seed = running.pop(future)
                    if not self._ended(future, strategy.label, seed, on_outcome):
                        waiting.insert(0, (strategy, seed))
        finally:
            self.journal.flush()
        self.log_progress()
        self.outcomes.sort(key=lambda o: (list(self.setup.strategies).index(o.strategy), o.seed))
        self.folder.write_searches(self.outcomes, self.families, self.setup.space)

    def write_agreement(self) -> list[str]:
        """Write how far one-shot searches rank as the truth does, if it is known; say it."""
        truth = self.setup.truth
        if truth is None:
            return []
        rows = list(truth.rows(self.outcomes))
        self.folder.write_table("agreement", rows)
        return list(truth.reading(rows))

    def _begin(self, strategy: Strategy, seed: int) -> Any:
        label = label_of(strategy.label, seed)
        wants_host = strategy.wants_host(self._tasks[seed])
        if wants_host and seed not in self._hosts:
            # One for all strategies; each of them pays for it in full.
            train = train_host_on(self.slots.trial)
            kept = self.folder.state.at("hosts", str(seed))
            self._hosts[seed] = train.remote(self._tasks[seed].job, kept)
        self.journal.flush()
        past = self.journal.past(label)
        self._pasts[label] = past
        settings = {
            "storage": self.folder.tune_storage,
            "resources": (
                self.slots.supernet if strategy.family == "one-shot" else self.slots.trial
            ),
            "concurrency": self.concurrency,
            "memory": self._memory(label, past),
            "order": past.order,
        }
        actor: Any = ray.remote(num_cpus=0)(SearchProcess).remote()
        self._actors[label] = actor
        host = self._hosts[seed] if wants_host else None
        task, warm = self._references[seed], self.setup.warm_start(strategy, seed)
        return actor.run.remote(label, strategy, task, warm, host, self._board, settings)

    def _memory(self, label: str, past: Past) -> Memory:
        minutes = self.setup.config.resources.minutes_per_trial
        seconds = None if minutes is None else 60 * minutes
        return Memory(self.journal.trials(label), past.results, past.failures, seconds=seconds)

    def _hear(self, notes: list[Note]) -> None:
        for label, what, said in notes:
            if what == "evaluated":
                self._evaluated(label, *said)
            elif what == "noted":
                say(self.display.console, f"search {label}: {said[0]}")
            elif what == "trial_began":
                self.display.trial_began(label, *said)
            elif what == "trial_ended":
                trial, why = said
                self.display.trial_ended(label, trial, why)
                known = why is not None and trial in self._pasts[label].failures
                self.journal.trial_ended(label, trial, None if known else why)
        self.journal.flush(now=False)

    def _evaluated(self, label: str, row: dict[str, Any]) -> None:
        strategy, _, seed = label.rpartition("/seed")
        self.display.evaluated(label, row)
        self.logs.log_evaluation(strategy, int(seed), row)
        if not self._pasts[label].knows(row["trial"], row["epoch"]):
            self.journal.evaluated(label, row)

    def _ended(
        self,
        future: Any,
        name: str,
        seed: int,
        on_outcome: Callable[[SearchOutcome], None],
    ) -> bool:
        """Take what a search ended with; return False if it must begin again."""
        label = label_of(name, seed)
        self._actors.pop(label, None)
        try:
            outcome = ray.get(future)
        except RayError as error:
            why = reason(error)
            check_storage(error)
            its_process_died = not isinstance(error, RayTaskError)
            if its_process_died and self._restarts.setdefault(label, 0) < MAX_RESTARTS:
                # Its process died, not its trials: it goes on where it was.
                self._restarts[label] += 1
                Store(self.folder.tune_storage).remove(f"{name}-seed{seed}")
                say(self.display.console, f"search {label}: its process died ({why}); it goes on")
                return False
            self.failures[label] = f"search {label}: {why}"
            self.display.search_ended(label, why, failed=True)
            return True
        self.journal.search_ended(label, outcome)
        self._keep(outcome, on_outcome)
        return True

    def _keep(self, outcome: SearchOutcome, on_outcome: Callable[[SearchOutcome], None]) -> None:
        self.outcomes.append(outcome)
        self.folder.write_searches(self.outcomes, self.families, self.setup.space)
        label = label_of(outcome.strategy, outcome.seed)
        self.display.search_ended(label, str(outcome.genotype))
        on_outcome(outcome)
