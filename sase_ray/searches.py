"""The searches of a run: every strategy with every seed, side by side on one Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from rich.console import Console

from sase_ray.cluster import Slots, connected
from sase_ray.progress import Display
from sase_ray.results import RunFolder
from sase_ray.setup import Setup
from sase_ray.strategies import SearchTask, Strategy
from sase_ray.tensorboard import TensorBoardLogs
from sase_ray.tuning import SearchOutcome, TrialResources, run_search, train_host_on
from trainables.job import WarmHost

POLL_SECONDS = 0.5


@ray.remote(num_cpus=0)
class _Board:
    """Where searches on any node pin their evaluations, and the driver takes them off."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, int, dict[str, Any]]] = []

    def pin(self, strategy: str, seed: int, row: dict[str, Any]) -> None:
        self.notes.append((strategy, seed, row))

    def take(self) -> list[tuple[str, int, dict[str, Any]]]:
        taken, self.notes = self.notes, []
        return taken


@ray.remote(num_cpus=0, max_retries=0)
def _search(
    strategy: Strategy,
    task: SearchTask,
    host: WarmHost | None,
    storage: str,
    resources: TrialResources,
    concurrency: int,
    board: Any,
) -> SearchOutcome:
    if host is not None:
        task = task.with_host(host)
    pinned: list[Any] = []

    def pin(row: dict[str, Any]) -> None:
        pinned[:] = [board.pin.remote(strategy.name, task.job.seed, row)]

    outcome = run_search(
        strategy,
        task,
        storage=storage,
        resources=resources,
        concurrency=concurrency,
        listener=pin,
    )
    ray.get(pinned)  # so that the driver, once it knows of the end, finds all that came before
    return outcome


def reason(error: Exception) -> str:
    """Return why a Ray task failed: the last line of what it raised."""
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines()
    return lines[-1].strip() if lines else type(cause).__name__


@contextmanager
def started(setup: Setup, console: Console | None, workers: int = 1) -> Iterator[Searches]:
    """Join the cluster and begin a run; however it ends, leave nothing but its results.

    Args:
        setup: what to run.
        console: where progress goes; standard output if None.
        workers: that a training will need at once.

    Raises:
        UserError: there is no such cluster, it has no room for the workers, or the results folder
            exists.
    """
    searches = None
    try:
        with connected(setup.config.resources) as slots:
            slots.check_workers(workers)
            searches = Searches.start(setup, slots, console or Console())
            yield searches
    finally:
        if searches is not None:  # the workers, which wrote there, have ended
            searches.logs.close()
            searches.folder.remove_tune_storage()


@dataclass
class Searches:
    """The searches of one run under way.

    Attributes:
        setup: what to search, and by which strategies.
        slots: how the cluster is shared.
        folder: where the tables are written.
        display: where progress is shown.
        logs: TensorBoard's.
        outcomes: the searches that ended well.
        failures: label to reason, of the others.
    """

    setup: Setup
    slots: Slots
    folder: RunFolder
    display: Display
    logs: TensorBoardLogs
    outcomes: list[SearchOutcome] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    @classmethod
    def start(cls, setup: Setup, slots: Slots, console: Console) -> Searches:
        """Make the results folder and write the configuration."""
        config = setup.config
        folder = RunFolder.create(config)
        searches = [
            f"{name}/seed{seed}" for seed in range(config.seeds) for name in setup.strategies
        ]
        folder.write_config(
            config,
            {
                "splits": setup.search_data.splits,
                "final_splits": setup.final_data.splits,
                "searches": searches,
                "final_seeds": {
                    seed: list(setup.final_seeds(seed)) for seed in range(config.seeds)
                },
                "trials_at_once": slots.total,
            },
        )
        console.print(f"results in {folder.path}", highlight=False, markup=False, soft_wrap=True)
        logs = TensorBoardLogs(folder.tensorboard, setup.space)
        return cls(setup, slots, folder, Display(console, config.budget, config.metric), logs)

    @property
    def families(self) -> dict[str, str]:
        """Each strategy's family."""
        return {name: strategy.family for name, strategy in self.setup.strategies.items()}

    def run_all(self, on_outcome: Callable[[SearchOutcome], None] = lambda outcome: None) -> None:
        """Run every strategy with every seed.

        Args:
            on_outcome: called with each search that ends well, as it ends.
        """
        # One-shot searches cannot be spread over trials, so they begin first.
        order = sorted(self.setup.strategies.values(), key=lambda s: s.family != "one-shot")
        seeds = self.setup.config.seeds
        waiting = [(strategy, seed) for seed in range(seeds) for strategy in order]
        side_by_side, concurrency = self.slots.share(len(waiting))
        tasks = {seed: self.setup.task(seed) for seed in range(seeds)}
        references = {seed: ray.put(task) for seed, task in tasks.items()}
        hosts: dict[int, Any] = {}
        board = _Board.remote()  # type: ignore[attr-defined]
        running: dict[Any, tuple[str, int]] = {}
        while waiting or running:
            while waiting and len(running) < side_by_side:
                strategy, seed = waiting.pop(0)
                self.display.search_began(f"{strategy.name}/seed{seed}")
                wants_host = strategy.wants_host(tasks[seed])
                if wants_host and seed not in hosts:
                    # One for all strategies; each of them pays for it in full.
                    hosts[seed] = train_host_on(self.slots.trial).remote(tasks[seed].job)
                future = _search.remote(
                    strategy,
                    references[seed],
                    hosts[seed] if wants_host else None,
                    str(self.folder.tune_storage),
                    self.slots.trial,
                    concurrency,
                    board,
                )
                running[future] = (strategy.name, seed)
            ended, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            self._show(ray.get(board.take.remote()))
            for future in ended:
                self._ended(future, *running.pop(future), on_outcome)
        self.outcomes.sort(key=lambda o: (list(self.setup.strategies).index(o.strategy), o.seed))
        self.folder.write_searches(self.outcomes, self.families, self.setup.space)

    def _show(self, notes: list[tuple[str, int, dict[str, Any]]]) -> None:
        for strategy, seed, row in notes:
            self.display.evaluated(f"{strategy}/seed{seed}", row)
            self.logs.log_evaluation(strategy, seed, row)

    def _ended(
        self,
        future: Any,
        name: str,
        seed: int,
        on_outcome: Callable[[SearchOutcome], None],
    ) -> None:
        label = f"{name}/seed{seed}"
        try:
            outcome = ray.get(future)
        except ray.exceptions.RayError as error:
            why = reason(error)
            self.failures[label] = f"search {label}: {why}"
            self.display.search_ended(label, f"failed: {why}")
            return
        self.outcomes.append(outcome)
        self.folder.write_searches(self.outcomes, self.families, self.setup.space)
        self.display.search_ended(label, str(outcome.genotype))
        on_outcome(outcome)
