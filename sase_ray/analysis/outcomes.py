"""What the tables of a run say: the numbers behind the report's figures, as frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from sase_ray.results.load import Run
from sase_ray.results.schema import TABLES
from sase_ray.statistics.paired_tests import mean_of_steps
from sase_ray.statistics.rank_tests import FEWEST_BLOCKS, Kendall, against_control, kendall, overall
from sase_ray.statistics.rank_tests import smallest_signed_rank_p_value as smallest_p
from search_spaces.errors import UserError

BASELINE = "baseline"
MOST_MODULES = 60
"""Strategies and baselines of a report."""
GRID = 60
"""Points of an anytime curve."""
SEPARATOR = " · "
"""Between a run and its strategy, where several runs are compared."""


def metric_of(run: Run) -> str:
    """Return the metric that a run's searches ranked by."""
    return "val_accuracy" if run.config.get("metric") == "val_accuracy" else "val_loss"


def is_better_small(metric: str) -> bool:
    """Tell whether a metric is a loss."""
    return metric.endswith("loss")


def check_size(run: Run) -> None:
    """Check that a run has as many modules as a page can show.

    Raises:
        UserError: it has more than `MOST_MODULES`.
    """
    tables = {"strategies": "name", "final": "name", "searches": "strategy", "curves": "strategy"}
    for table, column in tables.items():
        found = getattr(run, table)[column].nunique()
        if found > MOST_MODULES:
            raise UserError(
                f"{run.path} has {found:,} strategies in {table}.parquet: a report shows at most "
                f"{MOST_MODULES}"
            )


def combine(runs: Sequence[Run]) -> Run:
    """Put runs beside each other as one, with every strategy labelled by its run.

    Of one run, return it as it is. The strategies of the result stand as in their runs, best first.
    """
    if len(runs) == 1:
        return runs[0]
    labels = labels_of(runs)
    tables = {}
    for table in TABLES:
        parts: list[pd.DataFrame] = []
        for run, label in zip(runs, labels, strict=True):
            frame = getattr(run, table)
            columns = [c for c in ("name", "strategy", "module") if c in frame]
            changed = {columns[0]: label + SEPARATOR + frame[columns[0]]}
            if "seed" in frame:  # seeds of two runs have nothing in common
                changed["seed"] = frame["seed"] + 10**6 * len(parts)
            parts.append(frame.assign(**changed))
        filled = [part for part in parts if len(part)]
        tables[table] = pd.concat(filled, ignore_index=True) if filled else parts[0]
    tables["strategies"] = tables["strategies"].sort_values(
        "test_accuracy", ascending=False, kind="stable", ignore_index=True
    )
    return replace(runs[0], **tables)


def labels_of(runs: Sequence[Run]) -> list[str]:
    """Return a name for each run: its folder's, with a number where two are alike."""
    names = [run.name for run in runs]
    return [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


def accuracy_blocks(run: Run) -> pd.DataFrame:
    """Return mean test accuracies: a row a search seed, a column a strategy (no baselines).

    Seeds that a strategy lacks are left out, as a paired test needs them all.
    """
    final = run.final[(run.final["family"] != BASELINE) & ~run.final["diverged"]]
    order = list(dict.fromkeys(run.strategies["name"]))
    blocks = final.pivot_table(index="seed", columns="name", values="test_accuracy")
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
    found = found[found["test_accuracy"].notna()]
    if found.empty:
        return None
    row = found.sort_values("test_accuracy", ascending=False, kind="stable").iloc[0]
    same = found[np.isclose(found["test_accuracy"], row["test_accuracy"], rtol=0, atol=1e-12)]
    own = run.final[run.final["name"] == row["name"]]
    accuracy = own.groupby("module", sort=False)["test_accuracy"].mean()
    genotypes = accuracy.sort_values(ascending=False, kind="stable").index.tolist()
    alike = tuple(name for name in same["name"] if name != row["name"])
    return Winner(row, tuple(genotypes or row["genotypes"].split()), alike)


def anytime(run: Run, against: str = "search_samples") -> pd.DataFrame:
    """Average the validation metric of the incumbents over searches, from where all have one.

    One-shot searches have no stand-alone incumbent and are left out. Where all strategies have the
    same seeds, what a seed does to all strategies alike is removed before the intervals (Cousineau,
    "Confidence intervals in within-subject designs", 2005), so that bands show what a comparison of
    strategies sees.

    Args:
        run: with curves.
        against: search_samples, search_seconds, or trials (begun by then).

    Returns:
        Columns `strategy`, the one named by `against`, `value`, and its 95% interval over
        searches, `low` and `high` (NaN of one search).
    """
    value = f"incumbent_{metric_of(run)}"
    one_shot = set(run.trials.loc[run.trials["family"] == "one-shot", "strategy"])
    one_shot |= set(run.strategies.loc[run.strategies["family"] == "one-shot", "name"])
    curves = run.curves[~run.curves["strategy"].isin(one_shot)]
    begun = curves.groupby(["strategy", "seed"], sort=False)["trial"]
    curves = curves.assign(trials=begun.transform(lambda trial: (~trial.duplicated()).cumsum()))
    curves = curves[np.isfinite(curves[value]) & np.isfinite(curves[against])]
    curves = curves.assign(**{value: curves[value] - _shift_of_seeds(curves, value)})
    rows = []
    for name, own in curves.groupby("strategy", sort=False):
        searches = [search.sort_values(against) for _, search in own.groupby("seed")]
        first = max(search[against].iloc[0] for search in searches)
        last = min(search[against].iloc[-1] for search in searches)
        grid = np.linspace(first, max(first, last), GRID)
        courses = [(search[against].to_numpy(), search[value].to_numpy()) for search in searches]
        for place, mean in zip(grid, mean_of_steps(courses, grid), strict=True):
            rows.append((name, place, mean.mean, mean.low, mean.high))
    return pd.DataFrame(rows, columns=["strategy", against, "value", "low", "high"])


def _shift_of_seeds(curves: pd.DataFrame, value: str) -> pd.Series:
    """Return by how much the last incumbents of each row's seed lie off those of all seeds."""
    last = curves.groupby(["seed", "strategy"])[value].last().unstack("strategy")
    if last.isna().any(axis=None):
        return pd.Series(0.0, index=curves.index)
    mean = last.mean(axis=1)
    return curves["seed"].map(mean - mean.mean())


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
    final = run.final[~run.final["diverged"]].groupby(["name", "seed", "module"])["test_accuracy"]
    results = final.mean().rename("final").reset_index()
    metric = metric_of(run)
    trials = run.trials[(run.trials["status"] == "finished") & np.isfinite(run.trials[metric])]
    trials = trials[trials["family"] != "one-shot"]
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
    sign = -1 if is_better_small(metric_of(run)) else 1
    proxy = (sign * paired["proxy"]).tolist()
    return kendall(proxy, paired["final"].tolist(), paired["seed"].tolist())
