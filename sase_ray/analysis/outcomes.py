"""What the tables of a run say: the numbers behind the report's figures, as frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sase_ray.results.families import is_of_trained_genotypes
from sase_ray.results.load import Run
from sase_ray.statistics.rank_tests import FEWEST_BLOCKS, Kendall, against_control, kendall, overall
from sase_ray.statistics.rank_tests import smallest_signed_rank_p_value as smallest_p
from search_spaces.errors import UserError
from trainables.metrics import Metric
from trainables.tasks.catalogue import make_task
from trainables.tasks.classification import CLASSIFICATION
from trainables.tasks.contract import Task

BASELINE = "baseline"


def task_of(run: Run) -> Task:
    """Return the task of a run; classification where its own is not installed."""
    name, options = run.config.get("task"), run.config.get("task_options")
    try:
        return make_task(str(name), options if isinstance(options, dict) else None)
    except UserError:
        return CLASSIFICATION


def metric_of(run: Run) -> str:
    """Return the name of the metric that a run's searches ranked by."""
    metric = run.config.get("metric")
    return metric if metric in task_of(run).reported("val") else "val_loss"


def ranking_metric(run: Run) -> Metric:
    """Return the metric that a run's searches ranked by."""
    return task_of(run).metric(metric_of(run))


def accuracy_blocks(run: Run) -> pd.DataFrame:
    """Return mean test accuracies: a row a search seed, a column a strategy (no baselines).

    Seeds that a strategy lacks are left out, as a paired test needs them all.
    """
    final = run.final[(run.final["family"] != BASELINE) & ~run.final["diverged"]]
    order = list(dict.fromkeys(run.strategies["name"]))
    blocks = final.pivot_table(index="seed", columns="name", values=task_of(run).final)
    return blocks[[name for name in order if name in blocks]].dropna()


@dataclass(frozen=True)
class RankTests:
    """Tests on the ranks of strategies, with search seeds as blocks.

    Attributes:
        blocks: of `accuracy_blocks`.
        ranks: mean rank of each strategy, 1 is best.
        overall: p-value that all are alike (Friedman; of two, Wilcoxon).
        control: Wilcoxon's signed-rank tests against random search with Holm's correction; empty
            where it was not run.
        smallest: p-value that Wilcoxon's test cannot go below with so many seeds.
        can_draw: whether there are searches enough for a critical-difference diagram.
    """

    blocks: pd.DataFrame
    ranks: pd.Series
    overall: float
    control: pd.DataFrame
    smallest: float
    can_draw: bool


def rank_tests(run: Run, control: str = "random") -> RankTests | None:
    """Test a run's strategies on ranks; None with fewer than two strategies or seeds."""
    blocks = accuracy_blocks(run)
    if min(blocks.shape) < 2:
        return None
    tests = against_control(blocks, control) if control in blocks else pd.DataFrame()
    seeds, strategies = blocks.shape
    return RankTests(
        blocks=blocks,
        ranks=blocks.rank(axis=1, ascending=False).mean(),
        overall=overall(-blocks),
        control=tests,
        smallest=smallest_p(seeds),
        can_draw=seeds >= FEWEST_BLOCKS and strategies >= 3,
    )


@dataclass(frozen=True)
class Winner:
    """The strategy with the best mean test accuracy, and its answers.

    Attributes:
        row: of the strategies' table.
        genotypes: its distinct answers, the one with the best mean test accuracy first.
        alike: other strategies with the same mean.
    """

    row: pd.Series
    genotypes: tuple[str, ...]
    alike: tuple[str, ...]


def winner_of(run: Run) -> Winner | None:
    """Return the strategy that won, whether or not that is real; None before the final results."""
    found = run.strategies[run.strategies["family"] != BASELINE]
    found = found[found[task_of(run).final].notna()]
    if found.empty:
        return None
    row = found.sort_values(task_of(run).final, ascending=False, kind="stable").iloc[0]
    same = found[np.isclose(found[task_of(run).final], row[task_of(run).final], rtol=0, atol=1e-12)]
    own = run.final[run.final["name"] == row["name"]]
    accuracy = own.groupby("module", sort=False)[task_of(run).final].mean()
    genotypes = accuracy.sort_values(ascending=False, kind="stable").index.tolist()
    alike = tuple(name for name in same["name"] if name != row["name"])
    return Winner(row, tuple(genotypes or row["genotypes"].split()), alike)


def proxy_and_final(run: Run) -> pd.DataFrame:
    """Pair the proxy score of every answer with its final result.

    Only answers of searches that train genotypes by the proxy protocol: the scores of a one-shot
    search are its supernet's, on another scale.

    A seed shifts all scores of its searches together (its host, its images' order), and all final
    trainings likewise, so each seed's mean is removed from both.

    Returns:
        A row a search: `strategy`, `seed`, `genotype`, `proxy` (the metric of the run) and `final`
        (mean test accuracy), and the two less their seed's mean, `proxy_centred` and
        `final_centred`.
    """
    final = run.final[~run.final["diverged"]].groupby(["name", "seed", "module"])[
        task_of(run).final
    ]
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

    Strategies that came to the same answer with the same seed trained it alike: a single piece of
    evidence. A seed with one answer alone ranks nothing and is left out. Positive means that the
    better by proxy is the better in the end.
    """
    paired = proxy_and_final(run).drop_duplicates(["genotype", "seed"])
    paired = paired[paired.groupby("seed")["genotype"].transform("size") > 1]
    sign = -ranking_metric(run).sign
    proxy = (sign * paired["proxy"]).tolist()
    return kendall(proxy, paired["final"].tolist(), paired["seed"].tolist())


OF_GENOTYPE = (
    "test_accuracy", "val_accuracy", "val_loss", "test_loss", "parameters", "macs", "latency_ms",
)  # fmt: skip


def genotype_table(trials: pd.DataFrame, finals: pd.DataFrame | None) -> pd.DataFrame:
    """Return what is known of every genotype that was trained on its own.

    Args:
        trials: of `trials.parquet`; those that do not train a genotype each are left out.
        finals: of `final.parquet`, if there is one.

    Returns:
        Columns `OF_GENOTYPE` as far as known, means over trainings, by genotype: those with final
        trainings first, then by validation loss.
    """
    alone = trials[is_of_trained_genotypes(trials) & (trials["status"] == "finished")]
    known = [alone.groupby("genotype")[["val_loss", "val_accuracy"]].mean()]
    if finals is not None:
        found = finals[finals["family"] != "baseline"]
        columns = [name for name in OF_GENOTYPE if name in found]
        known.append(found.groupby("module")[columns].mean())
    table = pd.concat(known, axis=1)
    table["unknown"] = table["test_accuracy"].isna() if "test_accuracy" in table else True
    return table.sort_values(["unknown", "val_loss"], kind="stable")
