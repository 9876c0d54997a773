"""Comparison of strategies: all searches, the final trainings of their answers, the table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import ray
from rich.console import Console

from sase_ray.analysis.proxy_reliability import reliability_sentences, repeated_scores
from sase_ray.analysis.proxy_validity import validity_sentences
from sase_ray.analysis.recovery import PLANTED
from sase_ray.analysis.search_verdict import early_stops, narrow_views
from sase_ray.analysis.verdict import Verdict, judge
from sase_ray.config import Config, load_config
from sase_ray.execution.all_searches import (
    MAX_RESTARTS,
    Interrupted,
    Searches,
    started,
)
from sase_ray.execution.experiment import Experiment
from sase_ray.execution.final_trainings import FinalTrainings, await_trainings
from sase_ray.execution.observer import Observer
from sase_ray.monitoring.observers import Monitors
from sase_ray.monitoring.tensorboard_summary import write_summaries
from sase_ray.results.folder import check_new_run
from sase_ray.results.history import SearchOutcome
from sase_ray.results.rows import search_rows
from sase_ray.results.search_id import SearchId
from sase_ray.strategies.registry import tries_blindly
from search_spaces.costs import count_cost, measure_latency
from search_spaces.errors import UserError
from trainables.final.training import FinalJob
from trainables.hardware.device import best_device
from trainables.metrics import Metric
from trainables.persistence.store import Store

BASELINE = "baseline"

NETWORKS = "networks"
"""Folder of the trained networks in a run's folder: state dicts by strategy and final seed."""


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        folder: Folder where everything is written.
        metric: Metric by which the final trainings are compared.
        table: One row per strategy and per baseline, best first.
        reading: Sentences on what the numbers mean.
        outcomes: Every search that ended well.
        failures: Searches and final trainings that failed, with the reason.
    """

    folder: Path
    metric: Metric
    table: pd.DataFrame
    reading: tuple[str, ...]
    outcomes: list[SearchOutcome]
    failures: dict[str, str]


def compare(
    config: Config | Mapping[str, Any] | str | Path | None = None,
    *,
    console: Console | None = None,
    **overrides: Any,
) -> Comparison:
    """Compare search strategies at equal budget.

    Args:
        config: Configuration, or the path of a YAML file, or None for the defaults.
        console: Console for progress; standard output if None.
        overrides: Values that take precedence over the file's, e.g. ``dataset="digits"``,
            ``seeds=3``, ``proxy={"epochs": 5}``.

    Raises:
        UserError: Something that is asked for does not exist or does not fit; nothing has been
            written.
    """
    experiment = Experiment.of(load_config(config, overrides))
    check_new_run(experiment.config)
    return run_comparison(experiment, console)


def run_comparison(
    experiment: Experiment, console: Console | None = None, interrupted: Interrupted | None = None
) -> Comparison:
    """Run a comparison whose parts are checked, or the rest of an interrupted one.

    Raises:
        UserError: No search gave a result, or the results cannot be written.
    """
    monitors = Monitors.of(experiment, console, finals=True)
    with started(experiment, console, {"kind": "compare"}, monitors, interrupted) as searches:
        run = _Run(searches)
        searches.observers.append(run)
        # Before the searches: a reader may not want to wait for them then.
        if run.trains_genotypes:
            for sentence in validity_sentences(experiment.config, experiment.validity, run.place):
                searches.notify("noted", sentence)
        with monitors.display.shown():
            searches.run_all()
            run.train_finals()
        verdict = run.verdict()
    return Comparison(
        run.folder.path,
        verdict.metric,
        verdict.table,
        (*verdict.reading, *run.on_reliability()),
        searches.outcomes,
        run.failures,
    )


@ray.remote(max_retries=MAX_RESTARTS)
def _costs(jobs: dict[str, FinalJob], shape: tuple[int, int, int]) -> dict[str, dict[str, float]]:
    """Measure all modules one by one in one process, so that latencies are comparable."""
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
class _Run(Observer):
    """A comparison under way, which begins the final trainings of each search that ends."""

    searches: Searches
    # Name, family and search seed of every final training that the table needs, and the job.
    finals: list[tuple[str, str, int, FinalJob]] = field(default_factory=list)
    # The same module with the same seed is trained once, whichever search found it.
    trained: dict[tuple[str, int], Any] = field(default_factory=dict)
    results: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.experiment = self.searches.experiment
        self.slots = self.searches.slots
        self.folder = self.searches.folder
        self.failures = self.searches.failures
        self.trainings = FinalTrainings(
            self.slots,
            self.experiment.config.final.workers,
            self.experiment.problem.final_data,
            self.folder.state.at("finals"),
            self.searches.shared_host,
        )

    def search_ended(self, search: SearchId, outcome: SearchOutcome) -> None:
        """Begin the final trainings of a search's answer."""
        family = self.searches.families[search.label]
        self._begin_finals(search.label, family, search.seed, str(outcome.genotype))

    def _begin_finals(self, name: str, family: str, replicate: int, module: str) -> None:
        plant = self.searches.plant_of(replicate)
        hand_designed = family == BASELINE and name != PLANTED
        for seed in self.experiment.final_seeds(replicate):
            job = self.experiment.problem.final_job(module, baseline=hand_designed, seed=seed)
            self.finals.append((name, family, replicate, job))
            if (module, seed) not in self.trained:
                self.trained[module, seed] = self.trainings.begin(job, plant)

    def train_finals(self) -> None:
        """Begin the baselines' final trainings, and wait for all.

        Raises:
            UserError: No search gave a result, so that there is nothing to compare.
        """
        if not self.searches.outcomes:
            raise UserError("; ".join(self.failures.values()))
        replicates = range(self.experiment.config.seeds)
        for name in self.experiment.config.baselines:
            for replicate in replicates:
                self._begin_finals(name, BASELINE, replicate, name)
        for replicate, plant in self.searches.plants().items():
            self._begin_finals(PLANTED, BASELINE, replicate, plant.text)
        self.results = await_trainings(self.trained, self.searches)

    def verdict(self) -> Verdict:
        """Measure the modules' costs, write the tables, and compare.

        Raises:
            UserError: No final training ended well.
        """
        if not self.results:
            raise UserError("; ".join(self.failures.values()))
        trained = {module for module, _ in self.results}
        jobs = {job.module: job for *_, job in self.finals if job.module in trained}
        trial = self.slots.trial
        costs = ray.get(
            _costs.options(num_cpus=trial.cpus, num_gpus=trial.gpus).remote(
                jobs, self.experiment.problem.final_data.shape
            )
        )
        finals = self.folder.write_table("final", self._final_rows(costs))
        if activations := list(self._activation_rows()):
            self.folder.write_table("gradcam", activations)
        self._write_networks()
        searches = pd.DataFrame(search_rows(self.searches.outcomes))
        task = self.experiment.config.make_task()
        verdict = judge(
            finals,
            searches,
            test_size=len(self.experiment.problem.final_data.test),
            dataset=self.experiment.config.dataset,
            column=task.final,
            metric=task.metric(task.final),
        )
        stops = early_stops(self.searches.outcomes, self.experiment.config.budget)
        narrow = narrow_views(self.searches.outcomes, self.experiment.problem.space)
        agreement = self.searches.write_agreement()
        recovery = self.searches.write_recovery(finals)
        host = self.searches.on_shared_host()
        notes = (*recovery, *host, *stops, *narrow, *agreement)
        verdict = replace(verdict, reading=(*verdict.reading, *notes))
        self.folder.write_table("strategies", verdict.table.to_dict("records"), csv=True)
        write_summaries(self.folder.path)
        return verdict

    @property
    def trains_genotypes(self) -> bool:
        """Whether a search trains genotypes one by one, by the proxy protocol."""
        return any(s.trains_genotypes for s in self.experiment.strategies.values())

    @property
    def place(self) -> str:
        """Path of the run's folder from here."""
        return os.path.relpath(self.folder.path)

    def on_reliability(self) -> Iterable[str]:
        """Yield sentences on how well the searches that train genotypes could rank them."""
        config = self.experiment.config
        if not self.trains_genotypes:
            return
        trials = [
            pd.DataFrame(outcome.history.trials()).assign(seed=outcome.seed)
            for outcome in self.searches.outcomes
            # Others stop the worse trials early, or end up training only the better genotypes.
            if tries_blindly(outcome.strategy)
        ]
        scores = repeated_scores(pd.concat(trials), config.metric) if trials else None
        yield from reliability_sentences(config, self.experiment.reliability, scores, self.place)
        yield from validity_sentences(config, self.experiment.validity, self.place)

    def _finals_in_order(self) -> list[tuple[str, str, int, FinalJob]]:
        # The searches end in any order.
        order = [*self.experiment.strategies, *self.experiment.config.baselines, PLANTED]
        return sorted(self.finals, key=lambda f: (order.index(f[0]), f[2], f[3].seed))

    def _final_rows(self, costs: dict[str, dict[str, float]]) -> Iterator[dict[str, Any]]:
        for name, family, replicate, job in self._finals_in_order():
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

    def _write_networks(self) -> None:
        """Write the trained networks of the searches' answers, if they are kept."""
        for name, _, _, job in self._finals_in_order():
            content = self.trainings.weights(job) if job.keeps_weights else None
            if content is not None:
                store = Store(self.folder.path).at(NETWORKS)
                store.write(f"{name}-{job.seed}.pt", content)

    def _activation_rows(self) -> Iterator[dict[str, Any]]:
        for name, family, replicate, job in self._finals_in_order():
            activations = self.trainings.activations(job) if job.shown else None
            if activations is not None:
                genotype = None if family == BASELINE else job.module
                head = {"module": name, "genotype": genotype, "seed": replicate}
                for row in activations.to_dict("records"):
                    yield head | row
