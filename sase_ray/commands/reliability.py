"""Reliability of a proxy protocol: the same genotypes, trained with several seeds."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from sase_ray.analysis.proxy_reliability import protocol_key
from sase_ray.analysis.reliability_table import read_table, reliability_table, scores
from sase_ray.config import Config, load_config
from sase_ray.execution.all_searches import Interrupted, Searches, started
from sase_ray.execution.experiment import Experiment, Problem
from sase_ray.monitoring.observers import Monitors
from sase_ray.results.folder import check_new_run
from sase_ray.results.history import SearchOutcome
from sase_ray.strategies.black_box.listed import ListedStudy
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace


@dataclass(frozen=True)
class ReliabilityReport:
    """The reliability of a proxy protocol.

    Attributes:
        folder: Folder where everything is written.
        table: One row per metric and epoch, see `reliability_table`.
        left_out: Genotypes that are not in the table, with the reason: `diverged` with some seed,
            or `failed`, if one of their trials did not reach its end.
        reading: Sentences on what the numbers mean.
    """

    folder: Path
    table: pd.DataFrame
    left_out: dict[str, str]
    reading: tuple[str, ...]


def measure_reliability(
    config: Config | Mapping[str, Any] | str | Path | None = None,
    *,
    genotypes: int = 24,
    seeds: int = 4,
    draw: int = 0,
    console: Console | None = None,
    **overrides: Any,
) -> ReliabilityReport:
    """Train random genotypes with several seeds by a configuration's proxy protocol.

    Args:
        config: As for `compare`; its strategies, budget and seeds are not used.
        genotypes: Number of genotypes, drawn uniformly without replacement.
        seeds: Number of trainings of each.
        draw: Seed of the draw.
        console: Console for progress; standard output if None.
        overrides: As for `compare`.

    Raises:
        UserError: As for `compare`; or there are fewer than two genotypes or seeds, or fewer than
            two genotypes that every seed trained to the end.
    """
    settings = load_config(config, overrides)
    for count, what in ((genotypes, "genotypes"), (seeds, "seeds")):
        if count < 2:
            raise UserError(f"{what} must be at least 2 to tell signal from noise, got {count}")
    rng = random.Random(draw)
    drawn = [str(g) for g in SearchSpace.load(settings.space).sample_distinct(genotypes, rng)]
    experiment = study_of(settings, drawn, seeds)
    check_new_run(experiment.config)
    return run_study(experiment, console)


def run_study(
    experiment: Experiment, console: Console | None = None, interrupted: Interrupted | None = None
) -> ReliabilityReport:
    """Run a study whose parts are checked, or the rest of an interrupted one.

    Raises:
        UserError: Fewer than two genotypes were trained to the end with every seed.
    """
    study = experiment.strategies["grid"]
    assert isinstance(study, ListedStudy)
    about = {"kind": "reliability", "genotypes": list(study.genotypes)}
    monitors = Monitors.of(experiment, console)
    with started(experiment, console, about, monitors, interrupted) as searches:
        with monitors.display.shown():
            searches.run_all()
            if searches.failures:
                raise UserError(next(iter(searches.failures.values())))
        # Within the run, so that `resume` also continues if a kill or a full disk interrupts this.
        return _conclude(experiment, searches)


def _conclude(experiment: Experiment, searches: Searches) -> ReliabilityReport:
    """Write the table and the figure of a study whose trainings have ended."""
    curves = pd.concat(
        [pd.DataFrame(o.history.evaluations).assign(seed=o.seed) for o in searches.outcomes]
    )
    table, left_out = reliability_table(curves)
    table.insert(0, "protocol", protocol_key(experiment.config))
    table["networks"] = experiment.config.proxy.seeds
    table["host_samples"] = experiment.task(0).job.samples_of_host
    table["host_seconds"] = np.mean([_host_seconds(outcome) for outcome in searches.outcomes])
    searches.folder.write_table("reliability", table.to_dict("records"), csv=True)
    metric = experiment.config.metric
    reading = read_table(table, left_out, metric)
    from sase_ray.figures.reliability import plot_reliability

    last = scores(curves, metric, left_out)
    plot_reliability(table, last, metric, searches.folder.path)
    return ReliabilityReport(searches.folder.path, table, left_out, reading)


def _host_seconds(outcome: SearchOutcome) -> float:
    """Return the device-seconds that a search spent before its first trial."""
    of_trials = pd.DataFrame(outcome.history.trials())["train_seconds"].sum()
    return max(0.0, outcome.seconds - float(of_trials))


def study_of(config: Config, genotypes: Sequence[str], seeds: int) -> Experiment:
    """Return the experiment that trains every listed genotype to the end with every seed."""
    problem = Problem.of(config)
    job = problem.job(0)
    study = {
        "strategies": ["grid"],
        "strategy_options": {},
        "baselines": [],
        "budget": job.samples_of_host + len(genotypes) * job.samples_per_trial,
        "seeds": seeds,
        "reliability": None,
        "agreement": None,
        "warm_start_from": None,
    }
    problem = replace(problem, config=config.model_copy(update=study))
    return Experiment(problem, {"grid": ListedStudy(genotypes=tuple(genotypes))})
