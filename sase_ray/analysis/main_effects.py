"""Operations of good genotypes on each edge, and the mean effect of each operation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import statsmodels.api as sm
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint

from sase_ray.analysis.outcomes import metric_of, ranking_metric
from sase_ray.results.families import is_of_trained_genotypes
from sase_ray.results.load import Run
from sase_ray.statistics.paired_tests import SIGNIFICANCE, holm
from search_spaces.genotype import EDGES

GOOD = 0.25
"""Share of the trained genotypes that count as good."""
FEWEST = 12
"""Minimum number of trained genotypes for statements about operations."""
SPARE = 10
"""Minimum number of observations that a model needs beyond its parameters."""


def variables_of(trials: pd.DataFrame) -> list[str]:
    """Return the columns of a table of trials that hold operations: edges, or stageN.edge."""
    return [
        column
        for column in trials
        if column.split(".")[-1] in EDGES and trials[column].astype(str).str.len().gt(0).any()
    ]


def trained_genotypes(run: Run) -> pd.DataFrame:
    """Return every genotype that was trained to the end, once per seed.

    Strategies that train the same genotype with the same seed repeat a training, exactly or almost
    exactly: the mean of such trainings counts once.

    Returns:
        Columns `genotype`, `seed`, `score` (the run's metric), `centred` (the score minus its
        seed's mean), and the operation of every edge.
    """
    metric = metric_of(run)
    trials = run.trials
    done = trials[
        (trials["status"] == "finished")
        & is_of_trained_genotypes(trials)
        & np.isfinite(trials[metric])
        & trials["genotype"].ne("")
    ]
    variables = variables_of(done)
    found = done.groupby(["genotype", "seed"], sort=False, as_index=False).agg(
        {metric: "mean", **dict.fromkeys(variables, "first")}
    )
    found = found.rename(columns={metric: "score"})
    centred = found["score"] - found.groupby("seed")["score"].transform("mean")
    found.insert(3, "centred", centred)
    return found


def operation_shares(run: Run) -> pd.DataFrame:
    """Count how often good genotypes have each operation on each edge.

    Good genotypes are the best quarter of the trained ones, after each seed's mean is removed.

    Returns:
        One row per edge and operation: `edge`, `operation`, `good` (share among the good ones)
        with its 95% interval `low` and `high` (Wilson), `all` (share among all), `count`, `of`.
        Empty with fewer than `FEWEST` genotypes.
    """
    columns = ["edge", "operation", "good", "low", "high", "all", "count", "of"]
    trained = trained_genotypes(run)
    if len(trained) < FEWEST:
        return pd.DataFrame(columns=columns)
    sign = ranking_metric(run).sign
    best = (sign * trained["centred"]).nsmallest(max(1, round(GOOD * len(trained)))).index
    good = trained.loc[best]
    rows = []
    for edge in variables_of(trained):
        share = trained[edge].value_counts(normalize=True)
        for operation in sorted(share.index):
            count = int((good[edge] == operation).sum())
            low, high = proportion_confint(count, len(good), alpha=SIGNIFICANCE, method="wilson")
            rows.append(
                (edge, operation, count / len(good), low, high, share[operation], count, len(good))
            )
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class MainEffects:
    """Least-squares estimates of the effect of each operation on the run's metric.

    Attributes:
        effects: One row per edge and operation: `edge`, `operation`, `effect` against the mean of
            the edge's operations (the metric's units), `low`, `high` (95%, not corrected for their
            number), `count`.
        edges: One row per edge: `edge`, `p_value` of the hypothesis that its operations are all
            alike (F-test), `p_holm` (Holm's correction over the edges).
        genotypes: Number of observations.
        joint: Whether all edges are in one model; otherwise there are too few genotypes for that,
            and each edge has a model of its own, in which the other edges are noise.
        spare: Number of observations beyond the parameters, of the smallest model.
    """

    effects: pd.DataFrame
    edges: pd.DataFrame
    genotypes: int
    joint: bool
    spare: int


def main_effects(run: Run) -> MainEffects | None:
    """Estimate main effects by ordinary least squares (statsmodels), with one intercept per seed.

    Returns:
        The estimates; None if fewer than `FEWEST` genotypes were trained, or no edge can be
        estimated.
    """
    trained = trained_genotypes(run)
    variables = [v for v in variables_of(trained) if trained[v].nunique() > 1]
    if len(trained) < FEWEST or not variables:
        return None
    joint = _fit(trained, variables)
    if joint is not None:
        effects, p_values, spare = joint
        return _collect(effects, p_values, len(trained), True, spare)
    single = {variable: _fit(trained, [variable]) for variable in variables}
    fitted = {variable: fit for variable, fit in single.items() if fit is not None}
    if not fitted:
        return None
    return _collect(
        [row for rows, _, _ in fitted.values() for row in rows],
        {variable: p[variable] for variable, (_, p, _) in fitted.items()},
        len(trained),
        False,
        min(spare for *_, spare in fitted.values()),
    )


def _collect(
    effects: list[tuple[object, ...]],
    p_values: dict[str, float],
    genotypes: int,
    joint: bool,
    spare: int,
) -> MainEffects:
    columns = ["edge", "operation", "effect", "low", "high", "count"]
    edges = pd.DataFrame({"edge": list(p_values), "p_value": list(p_values.values())})
    edges["p_holm"] = holm(edges["p_value"].tolist())
    return MainEffects(pd.DataFrame(effects, columns=columns), edges, genotypes, joint, spare)


def _fit(
    trained: pd.DataFrame, variables: list[str]
) -> tuple[list[tuple[object, ...]], dict[str, float], int] | None:
    """Fit one model, or return None if the genotypes do not determine it."""
    seeds = pd.get_dummies(trained["seed"]).to_numpy(dtype=float)
    codes = {variable: _sum_coded(trained[variable]) for variable in variables}
    design = np.hstack([seeds, *(matrix for _, matrix in codes.values())])
    spare = len(trained) - design.shape[1]
    if spare < SPARE or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    fitted = sm.OLS(trained["score"].to_numpy(), design).fit()
    rows: list[tuple[object, ...]] = []
    p_values = {}
    first = seeds.shape[1]
    for variable, (operations, matrix) in codes.items():
        width = matrix.shape[1]
        # The last operation's effect is minus the sum of the others.
        contrast = np.zeros((width + 1, design.shape[1]))
        contrast[:, first : first + width] = np.vstack([np.eye(width), -np.ones(width)])
        test = fitted.t_test(contrast)
        counts = trained[variable].value_counts()
        for operation, effect, (low, high) in zip(
            operations, test.effect, test.conf_int(SIGNIFICANCE), strict=True
        ):
            rows.append((variable, operation, effect, low, high, int(counts[operation])))
        p_values[variable] = float(fitted.f_test(contrast[:-1]).pvalue)
        first += width
    return rows, p_values, spare


def _sum_coded(operations: pd.Series) -> tuple[list[str], NDArray[np.float64]]:
    names = sorted(operations.unique())
    indicators = np.stack([(operations == name).to_numpy(dtype=float) for name in names], axis=1)
    return names, indicators[:, :-1] - indicators[:, -1:]
