"""Reliability and validity of a proxy protocol: the same genotypes, trained several times."""

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
from sase_ray.analysis.proxy_validity import of_interest, validity_sentences, validity_table
from sase_ray.analysis.reliability_table import read_table, reliability_table, scores
from sase_ray.config import Config, load_config
from sase_ray.execution.all_searches import Interrupted, Searches, started
from sase_ray.execution.experiment import FIRST_FINAL_SEED, Experiment, Problem
from sase_ray.execution.final_trainings import FinalTrainings, await_trainings
from sase_ray.monitoring.observers import Monitors
from sase_ray.results.folder import check_new_run
from sase_ray.results.history import SearchOutcome
from sase_ray.strategies.black_box.listed import ListedStudy
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from trainables.tasks.contract import Task


@dataclass(frozen=True)
class ReliabilityReport:
    """The reliability of a proxy protocol, and its validity if that was asked for.

    Attributes:
        folder: Folder where everything is written.
        task: Task whose metrics are measured.
        table: One row per metric and epoch, see `reliability_table`.
        left_out: Genotypes that are not in the table, with the reason: `diverged` with some seed,
            or `failed`, if one of their trials did not reach its end.
        reading: Sentences on what the numbers mean.
        validity: One row per metric, epoch and final metric, see `validity_table`; None without
            final trainings.
    """

    folder: Path
    task: Task
    table: pd.DataFrame
    left_out: dict[str, str]
    reading: tuple[str, ...]
    validity: pd.DataFrame | None = None


def measure_reliability(
    config: Config | Mapping[str, Any] | str | Path | None = None,
    *,
    genotypes: int = 24,
    seeds: int = 4,
    final: int = 0,
    draw: int = 0,
    console: Console | None = None,
    **overrides: Any,
) -> ReliabilityReport:
    """Train random genotypes with several seeds by a configuration's proxy protocol.

    With `final`, each is also trained by the final protocol, with other seeds, and the report says
    how well trials rank these results.

    Args:
        config: As for `compare`; its strategies, budget and seeds are not used.
        genotypes: Number of genotypes, drawn uniformly without replacement.
        seeds: Number of trainings of each.
        final: Number of final trainings of each; 0 for none.
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
            raise UserError(f"{what} must be at least 2 to separate noise from signal, got {count}")
    if final < 0 or final == 1:
        raise UserError(f"final must be 0, or at least 2 to measure its noise, got {final}")
    if settings.planted is not None and not settings.planted.same:
        raise UserError(
            "reliability needs one plant for all seeds, whose trainings it compares: set "
            "planted.same=true (which plant: planted.seed)"
        )
    rng = random.Random(draw)
    drawn = [str(g) for g in SearchSpace.load(settings.space).sample_distinct(genotypes, rng)]
    experiment = study_of(settings, drawn, seeds)
    check_new_run(experiment.config)
    return run_study(experiment, final, console)


def run_study(
    experiment: Experiment,
    final: int = 0,
    console: Console | None = None,
    interrupted: Interrupted | None = None,
) -> ReliabilityReport:
    """Run a study whose parts are checked, or the rest of an interrupted one.

    Args:
        experiment: Result of `study_of`.
        final: Number of final trainings of each genotype.
        console: Console for progress; standard output if None.
        interrupted: Study to continue; None begins a new one.

    Raises:
        UserError: Fewer than two genotypes were trained to the end with every seed.
    """
    study = experiment.strategies["grid"]
    assert isinstance(study, ListedStudy)
    about = {"kind": "reliability", "genotypes": list(study.genotypes), "final": final}
    monitors = Monitors.of(experiment, console, finals=final > 0)
    with started(experiment, console, about, monitors, interrupted) as searches:
        with monitors.display.shown():
            searches.run_all()
            if searches.failures:
                raise UserError(next(iter(searches.failures.values())))
            finals = _train_finals(experiment, searches, study.genotypes, final)
        # Within the run, so that `resume` also continues if a kill or a full disk interrupts this.
        return _conclude(experiment, searches, finals)


def _train_finals(
    experiment: Experiment, searches: Searches, genotypes: Sequence[str], count: int
) -> pd.DataFrame:
    """Return one row per genotype and final training, with seeds that no trial has."""
    if not count:
        return pd.DataFrame()
    problem = experiment.problem
    trainings = FinalTrainings(
        searches.slots,
        experiment.config.final.workers,
        problem.final_data,
        searches.folder.state.at("finals"),
        searches.shared_host,
    )
    plant = searches.plant_of(0)  # the same for all seeds
    begun = {
        (genotype, seed): trainings.begin(
            problem.final_job(genotype, baseline=False, seed=FIRST_FINAL_SEED + seed), plant
        )
        for seed in range(count)
        for genotype in genotypes
    }
    results = await_trainings(begun, searches)
    rows = [{"genotype": g, "seed": seed} | results[g, seed] for g, seed in results]
    return searches.folder.write_table("final_trainings", rows)


def _conclude(
    experiment: Experiment, searches: Searches, finals: pd.DataFrame
) -> ReliabilityReport:
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
    metric, task = experiment.config.metric, experiment.config.make_task()
    reading = read_table(table, left_out, metric, task)
    from sase_ray.figures.reliability import plot_reliability

    last = scores(curves, metric, left_out)
    plot_reliability(table, last, metric, task, searches.folder.path)
    valid = None
    if len(finals):
        kept = curves[~curves["genotype"].isin(left_out)]
        valid = validity_table(kept, finals, task, experiment.config)
        searches.folder.write_table("validity", valid.to_dict("records"), csv=True)
        row = of_interest(valid, experiment.config)
        reading = (*reading, *validity_sentences(experiment.config, row, str(searches.folder.path)))
    return ReliabilityReport(searches.folder.path, task, table, left_out, reading, valid)


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
