"""Runs a comparison: all searches, then the final training of what they found, then the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import ray
from rich.console import Console

from sase_ray.cluster import Slots, connected
from sase_ray.config import Config, load_config
from sase_ray.progress import Display
from sase_ray.results import RunFolder, check_new
from sase_ray.setup import Setup
from sase_ray.strategies import SearchTask, Strategy
from sase_ray.table import Verdict, judge
from sase_ray.tensorboard import TensorBoardLogs
from sase_ray.tuning import SearchOutcome, TrialResources, run_search
from search_spaces.costs import count_cost, measure_latency
from search_spaces.errors import UserError
from search_spaces.genotype import Genotype
from trainables.data import FinalData
from trainables.final import FinalJob, train_final
from trainables.oneshot import Ranking
from trainables.training import best_device

POLL_SECONDS = 0.5
BASELINE = "baseline"


@dataclass(frozen=True)
class Comparison:
    """What a comparison ended with.

    Attributes:
        folder: where everything is written.
        table: a row a strategy and a baseline, best first.
        reading: what can be said about it, in sentences.
        outcomes: every search that ended well.
        failures: searches and final trainings that did not, with the reason.
    """

    folder: Path
    table: pd.DataFrame
    reading: tuple[str, ...]
    outcomes: list[SearchOutcome]
    failures: dict[str, str]


@dataclass(frozen=True)
class SearchReport:
    """What a single search ended with.

    Attributes:
        folder: where everything is written.
        genotype: the strategy's answer.
        ranking: genotypes with scores, best first.
        outcome: with the whole history.
    """

    folder: Path
    genotype: Genotype
    ranking: Ranking
    outcome: SearchOutcome


def compare(
    config: Config | str | Path | None = None,
    *,
    console: Console | None = None,
    **overrides: Any,
) -> Comparison:
    """Compare search strategies at equal budget.

    Args:
        config: a configuration, or the path of a YAML file, or None for the defaults.
        console: where progress goes; standard output if None.
        overrides: values that win over the file's, e.g. ``dataset="digits"``, ``seeds=3``,
            ``proxy={"epochs": 5}``.

    Raises:
        UserError: what was asked for does not exist or does not fit; nothing has been written.
    """
    setup = Setup.of(load_config(config, overrides))
    check_new_run(setup.config)
    with connected(setup.config.resources) as slots:
        run = _Run.start(setup, slots, console or Console())
        with run.display.shown():
            run.search_all(setup.config.seeds)
            run.train_finals()
        verdict = run.judge()
    return Comparison(run.folder.path, verdict.table, verdict.reading, run.outcomes, run.failures)


def search(
    strategy: str,
    config: Config | str | Path | None = None,
    *,
    console: Console | None = None,
    **overrides: Any,
) -> SearchReport:
    """Run one strategy once, without final training.

    Args:
        strategy: its name.
        config: as for `compare`.
        console: as for `compare`.
        overrides: as for `compare`.

    Raises:
        UserError: as for `compare`, or the search came to no result.
    """
    one = {"strategies": [strategy], "seeds": 1, "baselines": []}
    settings = load_config(config, overrides | one)
    options = {name: given for name, given in settings.strategy_options.items() if name == strategy}
    setup = Setup.of(settings.model_copy(update={"strategy_options": options}))
    check_new_run(setup.config)
    with connected(setup.config.resources) as slots:
        run = _Run.start(setup, slots, console or Console())
        with run.display.shown():
            run.search_all(seeds=1, train_answers=False)
        run.logs.close()
        run.folder.remove_tune_storage()
    if run.failures:
        raise UserError(next(iter(run.failures.values())))
    outcome = run.outcomes[0]
    return SearchReport(run.folder.path, outcome.genotype, outcome.ranking, outcome)


def _reason(error: Exception) -> str:
    """Return why a Ray task failed: the last line of what it raised."""
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines()
    return lines[-1].strip() if lines else type(cause).__name__


def check_new_run(config: Config) -> None:
    """Check that the run's folder, if it is named, is not there yet.

    Raises:
        UserError: it is.
    """
    if config.run:
        check_new(Path(config.results) / config.run)


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
    storage: str,
    resources: TrialResources,
    concurrency: int,
    board: Any,
) -> SearchOutcome:
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


@ray.remote(max_retries=2)
def _final(job: FinalJob, data: FinalData) -> dict[str, Any]:
    return train_final(job, data)


@ray.remote(max_retries=2)
def _costs(jobs: dict[str, FinalJob], shape: tuple[int, int, int]) -> dict[str, dict[str, float]]:
    """Measure all modules one after the other in one process, so that latencies compare."""
    costs = {}
    for module, job in jobs.items():
        model = job.build()
        cost = count_cost(model, shape)
        latency = measure_latency(model.to(best_device()), shape)
        costs[module] = {
            "parameters": cost.parameters,
            "macs": cost.macs,
            "latency_ms": latency,
        }
    return costs


@dataclass
class _Run:
    """A comparison under way."""

    setup: Setup
    slots: Slots
    folder: RunFolder
    display: Display
    logs: TensorBoardLogs
    outcomes: list[SearchOutcome] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    # Name, family and search seed of every final training that the table needs, and the job.
    finals: list[tuple[str, str, int, FinalJob]] = field(default_factory=list)
    # The same module with the same seed is trained once, whoever found it.
    trained: dict[tuple[str, int], Any] = field(default_factory=dict)
    results: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def start(cls, setup: Setup, slots: Slots, console: Console) -> _Run:
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

    def search_all(self, seeds: int, *, train_answers: bool = True) -> None:
        """Run every strategy with every seed; begin final trainings as answers come in."""
        # One-shot searches cannot be spread over trials, so they begin first.
        order = sorted(self.setup.strategies.values(), key=lambda s: s.family != "one-shot")
        waiting = [(strategy, seed) for seed in range(seeds) for strategy in order]
        side_by_side, concurrency = self.slots.share(len(waiting))
        tasks = {seed: ray.put(self.setup.task(seed)) for seed in range(seeds)}
        if train_answers:
            self.data = ray.put(self.setup.final_data)
        board = _Board.remote()  # type: ignore[attr-defined]
        running: dict[Any, tuple[str, int]] = {}
        while waiting or running:
            while waiting and len(running) < side_by_side:
                strategy, seed = waiting.pop(0)
                self.display.search_began(f"{strategy.name}/seed{seed}")
                future = _search.remote(
                    strategy,
                    tasks[seed],
                    str(self.folder.tune_storage),
                    self.slots.trial,
                    concurrency,
                    board,
                )
                running[future] = (strategy.name, seed)
            ended, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            self._show(ray.get(board.take.remote()))
            for future in ended:
                name, seed = running.pop(future)
                self._search_ended(future, name, seed, train_answers)
        self.outcomes.sort(key=lambda o: (list(self.setup.strategies).index(o.strategy), o.seed))
        self.folder.write_searches(self.outcomes, self.families, self.setup.space)

    def _show(self, notes: list[tuple[str, int, dict[str, Any]]]) -> None:
        for strategy, seed, row in notes:
            self.display.evaluated(f"{strategy}/seed{seed}", row)
            self.logs.log_evaluation(strategy, seed, row)

    def _search_ended(self, future: Any, name: str, seed: int, train_answer: bool) -> None:
        label = f"{name}/seed{seed}"
        try:
            outcome = ray.get(future)
        except ray.exceptions.RayError as error:
            reason = _reason(error)
            self.failures[label] = f"search {label}: {reason}"
            self.display.search_ended(label, f"failed: {reason}")
            return
        self.outcomes.append(outcome)
        self.folder.write_searches(self.outcomes, self.families, self.setup.space)
        self.display.search_ended(label, str(outcome.genotype))
        if train_answer:
            self._begin_finals(name, self.families[name], seed, str(outcome.genotype))

    def _begin_finals(self, name: str, family: str, replicate: int, module: str) -> None:
        for seed in self.setup.final_seeds(replicate):
            job = self.setup.final_job(module, baseline=family == BASELINE, seed=seed)
            self.finals.append((name, family, replicate, job))
            if (module, seed) not in self.trained:
                trial = self.slots.trial
                self.trained[module, seed] = _final.options(
                    num_cpus=trial.cpus, num_gpus=trial.gpus
                ).remote(job, self.data)
                self.display.finals_grew(1)

    def train_finals(self) -> None:
        """Begin the baselines' final trainings, and wait for all.

        Raises:
            UserError: no search came to a result, so that there is nothing to compare.
        """
        if not self.outcomes:
            self.folder.remove_tune_storage()
            raise UserError("; ".join(self.failures.values()))
        replicates = range(self.setup.config.seeds)
        for name in self.setup.config.baselines:
            for replicate in replicates:
                self._begin_finals(name, BASELINE, replicate, name)
        keys = {future: key for key, future in self.trained.items()}
        pending = list(keys)
        while pending:
            ended, pending = ray.wait(pending, timeout=POLL_SECONDS)
            for future in ended:
                module, seed = keys[future]
                try:
                    self.results[module, seed] = ray.get(future)
                except ray.exceptions.RayError as error:
                    label = f"final training of {module} with seed {seed}"
                    self.failures[label] = f"{label}: {_reason(error)}"
                self.display.final_ended(len(keys) - len(pending), module)

    def judge(self) -> Verdict:
        """Measure the modules' costs, write the tables, and compare.

        Raises:
            UserError: no final training came to its end.
        """
        self.folder.remove_tune_storage()
        if not self.results:
            raise UserError("; ".join(self.failures.values()))
        trained = {module for module, _ in self.results}
        jobs = {job.module: job for *_, job in self.finals if job.module in trained}
        trial = self.slots.trial
        costs = ray.get(
            _costs.options(num_cpus=trial.cpus, num_gpus=trial.gpus).remote(
                jobs, self.setup.final_data.shape
            )
        )
        finals = self.folder.write_table("final", self._final_rows(costs))
        searches = self.folder.write_table("searches", self._search_rows())
        verdict = judge(
            finals,
            searches,
            test_size=len(self.setup.final_data.test),
            dataset=self.setup.config.dataset,
        )
        self.folder.write_table("strategies", verdict.table.to_dict("records"), csv=True)
        self._log_results(verdict.table)
        return verdict

    def _final_rows(self, costs: dict[str, dict[str, float]]) -> Iterator[dict[str, Any]]:
        # In a fixed order: the searches end in any.
        order = [*self.setup.strategies, *self.setup.config.baselines]
        finals = sorted(self.finals, key=lambda f: (order.index(f[0]), f[2], f[3].seed))
        for name, family, replicate, job in finals:
            if (job.module, job.seed) not in self.results:
                continue
            yield {
                "name": name,
                "family": family,
                "seed": replicate,
                "final_seed": job.seed,
                "module": job.module,
                **self.results[job.module, job.seed],
                **costs[job.module],
            }

    def _search_rows(self) -> Iterator[dict[str, Any]]:
        for outcome in self.outcomes:
            yield {
                "strategy": outcome.strategy,
                "seed": outcome.seed,
                "genotype": str(outcome.genotype),
                "samples": outcome.samples,
                "seconds": outcome.seconds,
                "trials": len(outcome.history.trials()),
            }

    def _log_results(self, table: pd.DataFrame) -> None:
        config = self.setup.config
        for row in table.to_dict("records"):
            hparams = {
                "strategy": row["name"],
                "family": row["family"],
                "dataset": config.dataset,
                "space": config.space,
                "budget": config.budget,
            }
            metrics = ("test_accuracy", "search_samples", "search_seconds", "parameters", "macs")
            self.logs.log_result(
                f"{BASELINE} {row['name']}" if row["family"] == BASELINE else row["name"],
                hparams,
                {key: row[key] for key in (*metrics, "latency_ms")},
            )
        self.logs.close()
