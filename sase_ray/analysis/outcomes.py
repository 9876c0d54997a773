"""Numbers behind the report's figures, computed from the tables of a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sase_ray.results.families import is_of_trained_genotypes
from sase_ray.results.load import Run, task_in
from sase_ray.statistics.rank_tests import FEWEST_BLOCKS, Kendall, against_control, kendall, overall
from sase_ray.statistics.rank_tests import smallest_signed_rank_p_value as smallest_p
from trainables.metrics import SPREAD, Metric
from trainables.tasks.contract import Task

BASELINE = "baseline"


def task_of(run: Run) -> Task:
    """Return the task of a run; classification if its own is not installed."""
    return task_in(run.config)


def metric_of(run: Run) -> str:
    """Return the name of the metric by which a run's searches ranked."""
    metric = run.config.get("metric")
    return metric if metric in task_of(run).reported("val") else "val_loss"


def ranking_metric(run: Run) -> Metric:
    """Return the metric by which a run's searches ranked."""
    return task_of(run).metric(metric_of(run))


def final_column(run: Run) -> str:
    """Return the name of the metric by which a run's final trainings were compared.

    It is the one in the table of strategies, as earlier versions compared other tasks than
    classification by another metric; before there are results, it is that of the task.
    """
    task = task_of(run)
    table = run.strategies.dropna(axis="columns", how="all")
    return next((name for name in task.reported("test") if name in table), task.final)


def final_metric(run: Run) -> Metric:
    """Return the metric by which a run's final trainings were compared."""
    return task_of(run).metric(final_column(run))


def final_results(run: Run) -> pd.DataFrame:
    """Return the final trainings of a run that ended well.

    Returns:
        The rows of `final`, with the column `compared`: the final metric on the scale on which it
        is averaged and tested (`Metric.compared`).
    """
    final = run.final[~run.final["diverged"]]
    compared = final_metric(run).compared(final[final_column(run)])
    final = final.assign(compared=compared)
    return final[np.isfinite(final["compared"])]


def final_blocks(run: Run) -> pd.DataFrame:
    """Return mean final results: one row per search seed, one column per strategy (no baselines).

    They are on the scale on which the metric is compared. Seeds that a strategy lacks are left out,
    as a paired test needs them all.
    """
    final = final_results(run)
    final = final[final["family"] != BASELINE]
    order = list(dict.fromkeys(run.strategies["name"]))
    blocks = final.pivot_table(index="seed", columns="name", values="compared")
    return blocks[[name for name in order if name in blocks]].dropna()


@dataclass(frozen=True)
class RankTests:
    """Tests on the ranks of strategies, with search seeds as blocks.

    Attributes:
        blocks: Result of `final_blocks`, with the sign by which lower is better.
        ranks: Mean rank of each strategy, 1 is best.
        overall: P-value of the hypothesis that all are alike (Friedman; for two, Wilcoxon).
        control: Wilcoxon's signed-rank tests against random search with Holm's correction; empty
            if random search was not run.
        smallest: Smallest p-value that Wilcoxon's test can give with this number of seeds.
        can_draw: Whether there are enough searches for a critical-difference diagram.
    """

    blocks: pd.DataFrame
    ranks: pd.Series
    overall: float
    control: pd.DataFrame
    smallest: float
    can_draw: bool


def rank_tests(run: Run, control: str = "random") -> RankTests | None:
    """Test a run's strategies on ranks; None for fewer than two strategies or seeds."""
    blocks = final_metric(run).sign * final_blocks(run)
    if min(blocks.shape) < 2:
        return None
    tests = against_control(blocks, control) if control in blocks else pd.DataFrame()
    seeds, strategies = blocks.shape
    return RankTests(
        blocks=blocks,
        ranks=blocks.rank(axis=1).mean(),
        overall=overall(blocks),
        control=tests,
        smallest=smallest_p(seeds),
        can_draw=seeds >= FEWEST_BLOCKS and strategies >= 3,
    )


@dataclass(frozen=True)
class Winner:
    """The strategy with the best mean final result, and its answers.

    Attributes:
        row: Its row of the table of strategies.
        genotypes: Its distinct answers, the one with the best mean final result first.
        alike: Names of the other strategies with the same mean.
        alone: Whether it is the only strategy.
    """

    row: pd.Series
    genotypes: tuple[str, ...]
    alike: tuple[str, ...]
    alone: bool


def winner_of(run: Run) -> Winner | None:
    """Return the strategy with the best mean; None before the final results.

    Its lead may still be chance: see `RankTests` and `Verdict`.
    """
    found = run.strategies[run.strategies["family"] != BASELINE]
    column, metric = final_column(run), final_metric(run)
    lowest_first = metric.direction == "min"
    found = found[found[column].notna()]
    if found.empty:
        return None
    row = found.sort_values(column, ascending=lowest_first, kind="stable").iloc[0]
    same = found[np.isclose(found[column], row[column], rtol=0, atol=1e-12)]
    own = run.final[run.final["name"] == row["name"]]
    results = own.assign(compared=metric.compared(own[column]))
    means = results.groupby("module", sort=False)["compared"].mean()
    genotypes = means.sort_values(ascending=lowest_first, kind="stable").index.tolist()
    alike = tuple(name for name in same["name"] if name != row["name"])
    answers = tuple(genotypes or row["genotypes"].split())
    return Winner(row, answers, alike, alone=len(found) == 1)


def proxy_and_final(run: Run) -> pd.DataFrame:
    """Pair the proxy score of every answer with its final result.

    Only answers of searches that train genotypes by the proxy protocol are used: the scores of a
    one-shot search are its supernet's, on another scale.

    A seed shifts all scores of its searches together (by its host and the order of its images),
    and also all final trainings, so each seed's mean is removed from both.

    Returns:
        One row per search: `strategy`, `seed`, `genotype`, `proxy` (the metric of the run) and
        `final` (mean final result, on the scale on which it is compared), and both minus their
        seed's mean, `proxy_centred` and `final_centred`.
    """
    final = final_results(run).groupby(["name", "seed", "module"])["compared"]
    results = final.mean().rename("final").reset_index()
    metric = metric_of(run)
    trials = run.trials[(run.trials["status"] == "finished") & np.isfinite(run.trials[metric])]
    trials = trials[is_of_trained_genotypes(trials)]
    scores = trials.groupby(["strategy", "seed", "genotype"])[metric].mean().rename("proxy")
    paired = results.merge(
        scores.reset_index(),
        left_on=["name", "seed", "module"],
        right_on=["strategy", "seed", "genotype"],
    )
    paired = paired[["strategy", "seed", "genotype", "proxy", "final"]].dropna()
    distinct = paired.drop_duplicates(["genotype", "seed"]).groupby("seed")
    for column in ("proxy", "final"):
        means = distinct[column].mean()
        paired[f"{column}_centred"] = paired[column] - paired["seed"].map(means)
    return paired


def proxy_agreement(run: Run) -> Kendall:
    """Return Kendall's tau of proxy and final ranks within seeds.

    Strategies that found the same answer with the same seed trained it alike, which is a single
    piece of evidence. A seed with only one answer ranks nothing and is left out. A positive tau
    means that genotypes with better proxy scores also have better final results.
    """
    paired = proxy_and_final(run).drop_duplicates(["genotype", "seed"])
    paired = paired[paired.groupby("seed")["genotype"].transform("size") > 1]
    proxy = -ranking_metric(run).sign * paired["proxy"]
    final = -final_metric(run).sign * paired["final"]
    return kendall(proxy.tolist(), final.tolist(), paired["seed"].tolist())


OF_NETWORK = ("parameters", "macs", "latency_ms")
"""Columns with the costs of a network."""

UNKNOWN = "unknown"
"""Column of `genotype_table`: whether a genotype has no final training."""


def genotype_table(trials: pd.DataFrame, finals: pd.DataFrame | None) -> pd.DataFrame:
    """Return what is known of every genotype that was trained on its own.

    Args:
        trials: Rows of `trials.parquet`; trials that do not train one genotype are left out.
        finals: Rows of `final.parquet`, if there is one.

    Returns:
        The metrics on validation and test images and the columns of `OF_NETWORK`, as far as they
        are known, means over trainings, indexed by genotype: those with final trainings first,
        then by validation loss. `UNKNOWN` marks those without.
    """
    alone = trials[is_of_trained_genotypes(trials) & (trials["status"] == "finished")]
    known = [_means(alone, "genotype", "val_")]
    if finals is not None:
        known.append(_means(finals[finals["family"] != BASELINE], "module", "test_"))
    table = pd.concat(known, axis=1)
    table[UNKNOWN] = ~table.index.isin(known[-1].index) if len(known) > 1 else True
    keys = [key for key in (UNKNOWN, "val_loss") if key in table]
    return table.sort_values(keys, kind="stable")


def _means(table: pd.DataFrame, key: str, part: str) -> pd.DataFrame:
    """Return the means of a table's metrics of a part of the data, and of its costs, by a key."""
    metrics = [n for n in table if n.startswith(part) and not n.endswith(SPREAD)]
    columns = [name for name in (*metrics, *OF_NETWORK) if name in table]
    return table.groupby(key)[columns].mean()
