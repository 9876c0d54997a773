"""The searches of a run: every strategy with every seed, side by side on one Ray cluster."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from sase_ray.analysis.recovery import recovery_reading, recovery_rows
from sase_ray.cluster.connection import connected
from sase_ray.cluster.slots import Slots
from sase_ray.console import make_console, say
from sase_ray.execution.experiment import Experiment
from sase_ray.execution.failures import check_storage, reason
from sase_ray.execution.journal import Journal
from sase_ray.execution.observer import Event, Observer, notify
from sase_ray.execution.one_search import make_plant_on, train_host_on
from sase_ray.execution.registered import check_there
from sase_ray.execution.result_tables import ResultTables
from sase_ray.execution.search_actor import SearchProcess
from sase_ray.results.folder import RunFolder
from sase_ray.results.history import SearchOutcome
from sase_ray.results.search_id import SearchId
from sase_ray.strategies import Strategy
from search_spaces.errors import UserError
from trainables.persistence.resumable import Kept
from trainables.persistence.store import StorageError, Store
from trainables.planted.plant import Plant
from trainables.training.frozen_host import TrainedHost

POLL_SECONDS = 0.5

MAX_RESTARTS = 5
"""Number of times that a search whose own process (or node) died is begun again."""


@dataclass(frozen=True)
class Interrupted:
    """An interrupted run that is to be resumed.

    Attributes:
        folder: Folder of its results.
        concurrency: Number of trials that each of its searches runs at once.
    """

    folder: RunFolder
    concurrency: int


@contextmanager
def started(
    experiment: Experiment,
    console: Console | None,
    about: Mapping[str, Any],
    observers: Iterable[Observer] = (),
    interrupted: Interrupted | None = None,
) -> Iterator[Searches]:
    """Join the cluster and begin a run, or resume one.

    A run that reaches its end leaves only its results; of one that is interrupted, everything
    that is needed to resume it is kept.

    Args:
        experiment: Experiment to run: what to search, and by which strategies.
        console: Console on which the place of the results is printed; standard output if None.
        about: Record of the run: its `kind`, and its other arguments.
        observers: Observers of the run, in addition to its journal and its tables.
        interrupted: Run to resume; None begins a new one.

    Raises:
        UserError: There is no such cluster, it has no room for the workers of a final training,
            the results folder exists, or another process works on it.
    """
    console = console or make_console()
    searches = None

    def print_how_to_resume() -> None:
        if searches is not None:
            folder = searches.folder
            run = folder.storage.place if folder.storage else folder.path
            say(console, f"finished work is kept; to continue: sase-ray resume {run}")

    try:
        with connected(
            experiment.config.resources, print_how_to_resume, experiment.footprints
        ) as slots:
            check_there(experiment.problem.space)
            if about["kind"] == "compare":
                slots.check_workers(experiment.config.final.workers)
            folder, concurrency = _run_folder(experiment, slots, about, interrupted)
            say(console, f"results in {folder.path}")
            for note in experiment.problem.notes:
                say(console, f"data: {note}")
            searches = Searches(experiment, slots, folder, concurrency, [*observers])
            yield searches
        searches.folder.finish()
    except (KeyboardInterrupt, StorageError, RayError):
        print_how_to_resume()
        raise
    finally:
        if searches is not None:  # the workers, which wrote there, have ended
            searches.notify("run_ended")
            searches.folder.unlock()


def _run_folder(
    experiment: Experiment, slots: Slots, about: Mapping[str, Any], interrupted: Interrupted | None
) -> tuple[RunFolder, int]:
    """Return the locked folder of a run, and how many trials its searches run at once."""
    if interrupted is not None:
        folder = interrupted.folder
        folder.lock()
        shutil.rmtree(folder.tensorboard, ignore_errors=True)  # it is written again
        Store(folder.tune_storage).remove()
        return folder, interrupted.concurrency
    concurrency = slots.share(len(experiment.searches))
    folder = RunFolder.create(experiment.config)
    folder.lock()
    record = {
        **about,
        "notes": list(experiment.problem.notes),
        "splits": experiment.problem.search_data.splits,
        "final_splits": experiment.problem.final_data.splits,
        "searches": [str(search) for search in experiment.searches],
        "final_seeds": {s: list(experiment.final_seeds(s)) for s in range(experiment.config.seeds)},
        "trials_at_once": concurrency,
    }
    folder.begin(experiment.config, record)
    return folder, concurrency


@dataclass
class Searches:
    """The searches of one run under way.

    Attributes:
        experiment: Experiment: what to search, and by which strategies.
        slots: Division of the cluster among trials.
        folder: Folder where the tables are written.
        concurrency: Number of trials that each search runs at once.
        observers: Observers of the run; the journal and the tables come before those given.
        outcomes: Searches that ended well.
        failures: Reason of each failure, by the search or final training that failed.
    """

    experiment: Experiment
    slots: Slots
    folder: RunFolder
    concurrency: int
    observers: list[Observer] = field(default_factory=list)
    outcomes: list[SearchOutcome] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        experiment = self.experiment
        self._tasks = {seed: experiment.task(seed) for seed in range(experiment.config.seeds)}
        self._references = {seed: ray.put(task) for seed, task in self._tasks.items()}
        self._hosts: dict[int, Any] = {}
        self._plants: dict[int, Any] = {}
        self._restarts: dict[SearchId, int] = {}
        self._actors: dict[SearchId, Any] = {}
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # On the driver's node: its notifications must not be lost with another node.
        self._events = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self.journal = Journal(self.folder.state)
        tables = ResultTables(
            self.folder, experiment.problem.space, self.families, experiment.searches
        )
        self.observers[:0] = [self.journal, tables]
        self.notify("run_began", self.folder.path)

    def notify(self, event: str, *values: Any) -> None:
        """Notify all observers of an event, see `Observer`."""
        notify(self.observers, event, *values)

    @property
    def families(self) -> dict[str, str]:
        """Family of each strategy by its label."""
        return {name: strategy.family for name, strategy in self.experiment.strategies.items()}

    def run_all(self) -> None:
        """Run every strategy with every seed.

        Raises:
            StorageError: The reports of the searches cannot be stored.
        """
        # A search inside one supernet cannot be spread over trials, so it begins first.
        order = sorted(self.experiment.strategies.values(), key=lambda s: not s.trains_supernet)
        waiting = [(strategy, seed) for seed in self._tasks for strategy in order]
        running: dict[Any, tuple[Strategy, int]] = {}
        try:
            while waiting or running:
                while waiting and self.slots.has_room_for(len(running) + 1, self.concurrency):
                    strategy, seed = waiting.pop(0)
                    search = strategy.search_id(seed)
                    self.notify("search_began", search)
                    outcome = self.journal.outcome(search)
                    if outcome is None:
                        running[self._begin(strategy, seed)] = strategy, seed
                    else:  # it had ended before the run was interrupted
                        self.notify("search_recalled", search, outcome)
                        self._keep(search, outcome)
                ended, _ = ray.wait(list(running), timeout=POLL_SECONDS) if running else ([], [])
                for event, values in self._take_events():
                    self.notify(event, *values)
                self.notify("tick", False)
                for future in ended:
                    strategy, seed = running.pop(future)
                    if not self._ended(future, strategy.search_id(seed)):
                        waiting.insert(0, (strategy, seed))
        finally:
            self.journal.flush()
        self.notify("tick", True)
        searches = self.experiment.searches
        self.outcomes.sort(key=lambda o: searches.index(SearchId.of(o.strategy, o.seed)))

    def write_agreement(self) -> list[str]:
        """Write how well one-shot searches rank if the ground truth is known; return sentences."""
        truth = self.experiment.truth
        if truth is None:
            return []
        rows = list(truth.rows(self.outcomes))
        self.folder.write_table("agreement", rows)
        return list(truth.reading(rows))

    def write_recovery(self, finals: pd.DataFrame | None = None) -> list[str]:
        """Write what was recovered of the planted modules, if there are any; return sentences.

        Args:
            finals: Rows of `final.parquet`; None if nothing is trained by the final protocol.
        """
        plants = self.plants()
        if not plants:
            return []
        genotypes = {seed: plant.genotype for seed, plant in plants.items()}
        rows = recovery_rows(self.outcomes, finals, genotypes, self.experiment.problem.space)
        table = self.folder.write_table("recovery", rows, csv=True)
        return [*recovery_reading(table), *self.on_plants()]

    def _begin(self, strategy: Strategy, seed: int) -> Any:
        search = strategy.search_id(seed)
        wants_host = strategy.wants_host(self._tasks[seed])
        host = self._host(seed) if wants_host else None
        self.journal.flush()
        minutes = self.experiment.config.resources.minutes_per_trial
        seconds = None if minutes is None else 60 * minutes
        settings = {
            "storage": self.folder.tune_storage,
            "resources": self.slots.supernet if strategy.trains_supernet else self.slots.trial,
            "concurrency": self.concurrency,
            "kept": Kept(self.journal.trials(search), seconds),
            "past": self.journal.past(search),
        }
        actor: Any = ray.remote(num_cpus=0)(SearchProcess).remote()
        self._actors[search] = actor
        task, warm = self._references[seed], self.experiment.warm_start(strategy, seed)
        known = set(self._plants)
        plant = self.plant_of(seed)
        for number in self._plants.keys() - known:
            self.notify(
                "noted",
                f"searches for plant {number} wait until it is drawn and calibrated by trials",
            )
        return actor.run.remote(strategy, task, warm, host, plant, self._events, settings)

    def _take_events(self) -> list[Event]:
        events: list[Event] = self._events.get_nowait_batch(self._events.qsize())
        return events

    def _host(self, seed: int) -> Any:
        """Return the reference of the host that the searches of a seed begin with."""
        if self.experiment.problem.host_job is not None:
            return self.shared_host
        if seed not in self._hosts:
            # One for all strategies; each is charged its full cost.
            train = train_host_on(self.slots.trial)
            kept = self.folder.state.at("hosts", str(seed))
            self._hosts[seed] = train.remote(self._tasks[seed].job, kept)
        return self._hosts[seed]

    @cached_property
    def shared_host(self) -> Any:
        """Reference of the host that all searches and final trainings share; None without one."""
        if self.experiment.problem.host_job is None:
            return None
        train = train_host_on(self.slots.trial)
        return train.remote(self._tasks[0].job, self.folder.state.at("hosts", "shared"))

    def plant_of(self, seed: int) -> Any:
        """Return the reference of the plant that searches with a seed look for; None without."""
        job = self.experiment.problem.plant_job(seed)
        if job is None:
            return None
        if job.number not in self._plants:
            kept = self.folder.state.at("plants", str(job.number))
            make = make_plant_on(self.slots.trial)
            self._plants[job.number] = make.remote(job, self.shared_host, kept)
        return self._plants[job.number]

    def plants(self) -> dict[int, Plant]:
        """Return the plants by the seeds of the searches; empty if the run has none.

        Raises:
            UserError: One could not be made.
        """
        seeds = range(self.experiment.config.seeds)
        references = {seed: self.plant_of(seed) for seed in seeds}
        if None in references.values():
            return {}
        try:
            return {seed: ray.get(reference) for seed, reference in references.items()}
        except RayError as error:
            check_storage(error)
            raise UserError(f"planted: {reason(error)}") from None

    def on_plants(self) -> list[str]:
        """Return sentences on the plants: how they were made, and what that took."""
        plants = {plant.number: plant for plant in self.plants().values()}
        settings = self.experiment.config.planted
        if settings is None:
            return []
        made = list(plants.values())
        drawn, seconds = sum(p.draws for p in made), sum(p.seconds for p in made)
        least = min((cost for p in made for cost in p.costs.values()), default=float("nan"))
        calibrated = (
            f"{drawn - len(made)} of {drawn} draws could not be calibrated to {settings.share:.2%} "
            f"of the variance of their logits; the cheapest change of one edge costs {least:.2%}"
            if settings.share
            else "without calibration, so that edges may not matter"
        )
        return [
            f"Planted modules: {len(made)}, {calibrated}. To make them is in no strategy's cost: "
            f"{seconds:,.0f} device-seconds."
        ]

    def on_shared_host(self) -> list[str]:
        """Return sentences on the host that all share, and on its cost."""
        if self.experiment.problem.host_job is None:
            return []
        host: TrainedHost = ray.get(self.shared_host)
        kind = "frozen" if host.frozen else "trained"
        about = "whose classifier was trained for these images"
        if host.accuracy is not None:
            before = "" if self.experiment.config.data.shift is None else " before the shift"
            about = (
                f"which has an accuracy of {100 * host.accuracy:.2f}% on validation images of "
                f"{self.experiment.problem.host_job.data.name}{before}"
            )
        return [
            f"All modules are in one {kind} host, {about}. It was trained once, before all "
            f"searches, and is in no strategy's cost: "
            f"{host.samples:,} samples, {host.seconds:.0f} device-seconds."
        ]

    def _ended(self, future: Any, search: SearchId) -> bool:
        """Take the outcome of a search; return False if it must begin again."""
        self._actors.pop(search, None)
        try:
            outcome = ray.get(future)
        except RayError as error:
            why = reason(error)
            check_storage(error)
            its_process_died = not isinstance(error, RayTaskError)
            if its_process_died and self._restarts.setdefault(search, 0) < MAX_RESTARTS:
                # Its process died, not its trials: it resumes where it was.
                self._restarts[search] += 1
                Store(self.folder.tune_storage).remove(search.file_name)
                self.notify("noted", f"search {search}: its process died ({why}); it continues")
                return False
            self.failures[str(search)] = f"search {search}: {why}"
            self.notify("search_failed", search, why)
            return True
        self._keep(search, outcome)
        return True

    def _keep(self, search: SearchId, outcome: SearchOutcome) -> None:
        self.outcomes.append(outcome)
        self.notify("search_ended", search, outcome)
