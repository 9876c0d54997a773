"""Comparison of black-box strategies on a ground-truth table: hundreds of searches, no training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import ray
from rich.console import Console
from rich.progress import track

from sase_ray.analysis.regret import rank_strategies, reading_of, regret_blocks, regret_curves
from sase_ray.cluster.connection import connected
from sase_ray.config import ResourcesConfig, load_config
from sase_ray.console import make_console
from sase_ray.execution.simulation import Lookup, simulate_search, table_task
from sase_ray.results.folder import RunFolder, check_new_run
from sase_ray.statistics.rank_tests import pairwise
from sase_ray.strategies import Strategy
from sase_ray.strategies.catalogue import make_strategy, strategies
from sase_ray.tabular_benchmark.benchmark import TEST, TabularBenchmark
from search_spaces.errors import UserError

CHUNK = 10
"""Number of searches that a Ray task runs one after the other."""


DEFAULT_TRIALS = 40
"""The default budget, in trials trained to the end."""


@dataclass(frozen=True)
class TableComparison:
    """The result of a comparison on a table.

    Attributes:
        folder: Folder where everything is written.
        metric: Metric that searches ranked by.
        table: One row per strategy, best mean rank first, see `rank_strategies`.
        curves: `strategy`, `samples`, and the mean regret there with its 95% interval.
        reading: Sentences on what the numbers mean, the validity of the table first.
    """

    folder: Path
    metric: str
    table: pd.DataFrame
    curves: pd.DataFrame
    reading: tuple[str, ...]


def compare_on_table(
    table: TabularBenchmark | str | Path | None = None,
    names: Sequence[str] | None = None,
    *,
    budget: int | None = None,
    seeds: int = 200,
    metric: str = "val_loss",
    noise: bool = True,
    workers: int = 1,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    resources: ResourcesConfig | None = None,
    results: str | Path = "results",
    run: str | None = None,
    console: Console | None = None,
) -> TableComparison:
    """Run strategies on a ground-truth table in place of training.

    A search sees validation metrics of the epochs that it has paid for. Its answer is scored by
    its true test metric, against that of the best genotype. The searches of one seed share a world:
    true scores, drawn so that they agree with the table (see `TabularBenchmark.draw`).

    Args:
        table: The table or its path; the default is the bundled one.
        names: Black-box strategies; the default is all.
        budget: Training samples per search; the default is that of 40 full trials.
        seeds: Number of searches of each strategy.
        metric: Metric that searches rank by, `val_loss` or `val_accuracy`.
        noise: Draw truth and trainings again for every seed, with the measured noise; otherwise
            every search sees what was recorded, and regret is the expected one.
        workers: Number of trials that a search runs at a time, on a simulated clock.
        options: Options of strategies, by name.
        resources: The Ray cluster to run on.
        results: Folder in which the run's folder is made.
        run: Name of the run's folder.
        console: Console for progress; standard output if None.

    Raises:
        UserError: Something is unknown, or does not fit; nothing has been written.
    """
    console = console or make_console()
    if metric not in TEST:
        raise UserError(f"metric must be one of {', '.join(TEST)}, got {metric!r}")
    if not isinstance(table, TabularBenchmark):
        table = TabularBenchmark.load(table)
    chosen = _choose(names, options or {})
    if noise:
        table.reliability(metric)  # refuses a table whose noise is not known
    if not table.tells_apart(metric):
        raise UserError(
            f"the test images of this table distinguish no genotypes by {TEST[metric]}: regret "
            f"would mean nothing"
        )
    if workers < 1:
        raise UserError(f"workers must be at least 1, got {workers}")
    named = load_config(None, {"results": str(results), "run": run})
    check_new_run(named)
    if seeds < 2:
        raise UserError(f"seeds must be at least 2, got {seeds}: one search shows no spread")
    probe = table_task(table, seed=0, budget=10**15, metric=metric).job
    if budget is None:
        budget = probe.samples_of_host + DEFAULT_TRIALS * probe.samples_per_trial
    for strategy in chosen:
        strategy.check(table_task(table, seed=0, budget=budget, metric=metric))
    settings = {
        "strategies": [s.label for s in chosen],
        "strategy_options": {s.label: s.model_dump(mode="json") for s in chosen},
        "budget": budget,
        "seeds": seeds,
        "metric": metric,
        "noise": noise,
        "workers": workers,
    }
    with connected(resources or ResourcesConfig()):
        folder = RunFolder.make(named.results, named.run, "table")
        folder.write_config(settings, {"table": table.about})
        searches = pd.DataFrame(
            _run_all(chosen, table, budget, seeds, metric, noise, workers, console)
        )
    ends = searches.groupby(["strategy", "seed"], sort=False).last().reset_index()
    ranking = rank_strategies(ends)
    curves = regret_curves(searches, budget)
    folder.write_table("searches", searches.to_dict("records"))
    folder.write_table("regret", curves.to_dict("records"))
    folder.write_table("strategies", ranking.to_dict("records"), csv=True)
    from sase_ray.figures.regret import plot_table_comparison  # matplotlib takes a while to load

    tests = pairwise(regret_blocks(ends))
    plot_table_comparison(curves, ends, tests, table, metric, folder.path)
    reading = tuple(reading_of(ranking, ends, table, metric, noise))
    return TableComparison(folder.path, metric, ranking, curves, reading)


def _choose(
    names: Sequence[str] | None, options: Mapping[str, Mapping[str, Any]]
) -> list[Strategy]:
    allowed = [name for name, strategy in strategies().items() if strategy.trains_genotypes]
    chosen = [make_strategy(name, options.get(name)) for name in names or allowed]
    for strategy in chosen:
        if not strategy.trains_genotypes:
            raise UserError(
                f"{strategy.label} does not train genotypes one by one, so a table cannot stand "
                f"for its trainings: allowed are {', '.join(allowed)}"
            )
    if len({s.label for s in chosen}) < len(chosen):
        raise UserError("a strategy is named twice")
    return chosen


def _run_all(
    chosen: Sequence[Strategy],
    table: TabularBenchmark,
    budget: int,
    seeds: int,
    metric: str,
    noise: bool,
    workers: int,
    console: Console,
) -> Iterator[dict[str, Any]]:
    reference = ray.put(table)
    chunks = [range(first, min(first + CHUNK, seeds)) for first in range(0, seeds, CHUNK)]
    pending = [
        _run_chunk.remote(strategy, reference, chunk, budget, metric, noise, workers)
        for chunk in chunks
        for strategy in chosen
    ]
    for future in track(pending, "searching the table", console=console):
        yield from ray.get(future)


@ray.remote
def _run_chunk(
    strategy: Strategy,
    table: TabularBenchmark,
    seeds: range,
    budget: int,
    metric: str,
    noise: bool,
    workers: int,
) -> list[dict[str, Any]]:
    return [
        row
        for seed in seeds
        for row in search_table(strategy, table, seed, budget, metric, noise, workers)
    ]


def search_table(
    strategy: Strategy,
    table: TabularBenchmark,
    seed: int,
    budget: int,
    metric: str = "val_loss",
    noise: bool = True,
    workers: int = 1,
) -> list[dict[str, Any]]:
    """Run one search on a table; return one row per change of its incumbent, and one at its end.

    Rows have `strategy`, `seed`, `samples` and `seconds` (of all trials so far, and of the warm
    host), `trials` begun so far, `genotype`, and `regret`: how much worse its true test metric is
    than that of the best, 0 or more; with noise, in the world of the seed.
    """
    task = table_task(table, seed=seed, budget=budget, metric=metric)
    lookup: Lookup = partial(table.draw, seed=seed) if noise else table.lookup
    regret = partial(table.regret, metric=metric, seed=seed if noise else None)
    history = simulate_search(
        strategy, task, lookup, workers=workers, seconds_before=table.seconds_of_host
    )
    rows: list[dict[str, Any]] = []
    trials: set[str] = set()
    incumbent = None
    for row in history.evaluations:
        trials.add(row["trial"])
        if row["incumbent"] != incumbent:
            incumbent = row["incumbent"]
            rows.append(_point(row["search_samples"], row["search_seconds"], len(trials)))
            rows[-1] |= {"genotype": incumbent, "regret": regret(incumbent)}
    answer = str(strategy.conclude(history, task)[0][0])
    rows.append(_point(history.samples, history.seconds, len(trials)))
    rows[-1] |= {"genotype": answer, "regret": regret(answer)}
    return [{"strategy": strategy.label, "seed": seed} | row for row in rows]


def _point(samples: int, seconds: float, trials: int) -> dict[str, Any]:
    return {"samples": samples, "seconds": seconds, "trials": trials}
