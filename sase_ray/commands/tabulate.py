"""Training of a whole space by the proxy protocol, for `TabularBenchmark`; it can be resumed."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import ray
from pydantic import ConfigDict
from rich.console import Console

from sase_ray.analysis.proxy_reliability import protocol_of
from sase_ray.cluster.connection import connected
from sase_ray.cluster.slots import Slots
from sase_ray.config import Config, load_config
from sase_ray.console import make_console, say
from sase_ray.execution.experiment import Problem
from sase_ray.execution.observer import Observer
from sase_ray.execution.one_search import run_search, train_host_on
from sase_ray.execution.registered import check_there
from sase_ray.results.environment import PACKAGES, hardware, package_version
from sase_ray.results.history import Row
from sase_ray.results.search_id import SearchId
from sase_ray.strategies import Plan, SearchTask
from sase_ray.strategies.black_box.listed import ListedStudy
from sase_ray.tabular_benchmark.file_format import COLUMNS, read_benchmark, write_benchmark
from search_spaces.errors import UserError
from search_spaces.space import describe_space
from search_spaces.user_paths import user_path
from trainables.data import LabelledImages
from trainables.training.frozen_host import TrainedHost

CHUNK = 100
"""Number of trainings that a run of the grid strategy is given at a time."""

SAVE_SECONDS = 20.0
"""Interval of writing, which is the most that is lost when the driver dies."""


def tabulate(
    path: str | Path,
    config: Config | Mapping[str, Any] | str | Path | None = None,
    *,
    repeated: int = 100,
    seeds: int = 3,
    minutes: float | None = None,
    console: Console | None = None,
    **overrides: Any,
) -> int:
    """Train every genotype of a space with one seed, and a random part of them with several.

    The `grid` strategy trains them on Ray. A file that exists already is continued: what
    it holds is not trained again. The table holds test metrics, so that searches on it can be
    judged; no strategy ever reads them.

    Args:
        path: Path of the table, a Parquet file.
        config: As for `compare`; its strategies, budget and seeds are not used.
        repeated: Number of genotypes that are trained with all seeds, drawn at random.
        seeds: Number of trainings of each of these.
        minutes: Time after which no more begin, and the rest is left to another call.
        console: Console for progress; standard output if None.
        overrides: As for `compare`.

    Returns:
        The number of trainings that are still missing.

    Raises:
        UserError: As for `compare`; or the file is of another protocol.
    """
    path = user_path(path)
    if not os.path.isdir(path.parent):
        raise UserError(f"there is no folder {path.parent} to write {path.name} into")
    console = console or make_console()
    deadline = time.monotonic() + 60 * minutes if minutes is not None else None
    settings = load_config(config, overrides)
    problem = Problem.of(settings)
    if settings.planted is not None:
        raise UserError("a table is of trainings on a data set: leave planted out")
    space = problem.space
    if not 0 <= repeated <= space.size:
        raise UserError(f"space {space.name!r} has {space.size:,} genotypes, not {repeated:,}")
    sampled = [str(g) for g in space.sample_distinct(repeated, random.Random(0))]
    wanted = [(0, str(genotype)) for genotype in space]
    wanted += [(seed, genotype) for seed in range(1, seeds) for genotype in sampled]
    for note in problem.notes:
        say(console, f"data: {note}")
    with connected(settings.resources) as slots:
        check_there(space)
        sitting = _Sitting(path, problem, slots, console)
        order = sorted(wanted, key=lambda key: (key[1] not in sampled, key[0]))
        missing = [key for key in order if key not in sitting.done]
        console.print(
            f"{path}: {len(wanted) - len(missing):,} of {len(wanted):,} trainings are there",
            highlight=False,
        )
        chunk, pace = CHUNK if deadline is None else slots.total, 0.0
        while missing and (deadline is None or time.monotonic() + pace * slots.total < deadline):
            seed = missing[0][0]
            part = [key for key in missing if key[0] == seed][:chunk]
            began = time.monotonic()
            sitting.train(seed, [genotype for _, genotype in part])
            missing = [key for key in missing if key not in set(part)]
            if deadline is not None:
                pace = (time.monotonic() - began) / len(part)
                chunk = max(1, min(CHUNK, int((deadline - time.monotonic()) / pace)))
    return sum(key not in sitting.done for key in wanted)


class _Tabulating(ListedStudy):
    """A list of genotypes whose trained networks are also evaluated on test images."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    test: LabelledImages

    def plan(self, task: SearchTask) -> Plan:
        """Hand the test images to the trials."""
        plan = super().plan(task)
        return replace(
            plan, parameters={**plan.parameters, "test": self.test, "last_weights": False}
        )


def _about(problem: Problem) -> dict[str, Any]:
    job = problem.job(0)
    return {
        "config": protocol_of(problem.config),
        "space": describe_space(problem.space),
        "samples_per_epoch": job.samples_per_epoch,
        "samples_of_host": job.samples_of_host,
        "images": {
            "train": len(job.data.train),
            "validation": len(job.data.validation),
            "test": len(problem.final_data.test),
        },
        "versions": {package: package_version(package) for package in PACKAGES},
        "hardware": hardware(),
    }


class _Epochs(Observer):
    """Observer that passes the evaluations of one seed to the sitting."""

    def __init__(self, sitting: _Sitting) -> None:
        self.sitting = sitting

    def evaluated(self, search: SearchId, row: Row) -> None:
        self.sitting.record(search.seed, row)


class _Sitting:
    """One session of filling a table: the rows it has, and those being added."""

    def __init__(self, path: Path, problem: Problem, slots: Slots, console: Console) -> None:
        self.path = path
        self.problem = problem
        self.slots = slots
        self.console = console
        self.about = _about(problem)
        self.rows: list[dict[str, Any]] = []
        self.hosts: dict[str, Any] = {}
        self.trained_hosts: dict[int, TrainedHost] = {}
        if path.exists():
            self._read()
        # A trial's epochs become rows together, at its end.
        self.open: dict[str, list[dict[str, Any]]] = {}
        self.done = {(row["seed"], row["genotype"]) for row in self.rows}
        self.saved = time.monotonic()

    def _read(self) -> None:
        rows, about = read_benchmark(self.path)
        for key in ("config", "space"):
            if about[key] != self.about[key]:
                raise UserError(
                    f"{self.path} was made with another {key}: continue with the same, or choose "
                    f"another file"
                )
        self.hosts = about["hosts"]
        self.rows = rows.to_dict("records")

    def train(self, seed: int, genotypes: list[str]) -> None:
        """Train genotypes with one seed, and write the results."""
        job = self.problem.job(seed)
        budget = job.samples_of_host + len(genotypes) * job.samples_per_trial
        task = SearchTask(job, budget, self.problem.config.metric)
        strategy = _Tabulating(genotypes=tuple(genotypes), test=self.problem.final_data.test)
        if strategy.wants_host(task):
            if seed not in self.trained_hosts:
                train = train_host_on(self.slots.trial)
                self.trained_hosts[seed] = ray.get(train.remote(task.job))
            task = task.with_host(self._known_host(seed, self.trained_hosts[seed]))
        storage = self.path.parent / f".{self.path.name}.tune"
        try:
            run_search(
                strategy,
                task,
                storage=storage,
                resources=self.slots.trial,
                concurrency=self.slots.total,
                observers=[_Epochs(self)],
            )
        except UserError as error:  # none of these genotypes gave a result; others may
            self.console.print(f"seed {seed}: {error}", highlight=False, markup=False)
        finally:
            shutil.rmtree(storage, ignore_errors=True)
            self.save()

    def _known_host(self, seed: int, host: TrainedHost) -> TrainedHost:
        """Return the host if it is the one that the table's trainings of this seed began with."""
        content = b"".join(host.state[name].numpy().tobytes() for name in sorted(host.state))
        digest = hashlib.sha256(content).hexdigest()
        known = self.hosts.setdefault(
            str(seed), {"samples": host.samples, "seconds": host.seconds, "digest": digest}
        )
        if known.get("digest", digest) != digest:
            raise UserError(
                f"the warm host of seed {seed} came out differently than in {self.path}: go on "
                f"with the hardware, threads and versions that it was begun with"
            )
        return host

    def record(self, seed: int, row: Mapping[str, Any]) -> None:
        own = self.open.setdefault(row["trial"], [])
        own[:] = [old for old in own if old["epoch"] < row["epoch"]]
        own.append({key: row.get(key) for key in COLUMNS if key in row} | {"seed": seed})
        if not (row["finished"] or row["diverged"]):
            return
        self.rows += self.open.pop(row["trial"])
        self.done.add((seed, row["genotype"]))
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write all rows."""
        frame = pd.DataFrame(self.rows, columns=list(COLUMNS))
        write_benchmark(frame, {**self.about, "hosts": self.hosts}, self.path)
        self.saved = time.monotonic()
        self.console.print(f"{len(self.done):,} trainings written", highlight=False)
