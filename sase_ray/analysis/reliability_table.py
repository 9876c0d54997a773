"""Table of how reliably a protocol ranks genotypes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from sase_ray.statistics.variance_components import (
    icc_interval,
    rank_agreement,
    variance_components,
)
from search_spaces.errors import UserError
from trainables.metrics import SPREAD, Metric
from trainables.tasks.contract import Task

PARTS = ("val_", "last_val_")
"""Prefixes of the metrics: of the weights that the protocol judges, and of the last weights where
it averages them."""


def scores(curves: pd.DataFrame, metric: str, left_out: Collection[str]) -> pd.DataFrame:
    """Return the last epoch's scores: one row per genotype, one column per seed."""
    kept = curves[~curves["genotype"].isin(left_out)]
    last = kept[kept["epoch"] == kept["epoch"].max()]
    return last.pivot(index="genotype", columns="seed", values=metric)


def reliability_table(curves: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """Compute the reliability of every metric at every epoch.

    Args:
        curves: One row per evaluation: `genotype`, `seed`, `epoch`, `samples`, `train_seconds`,
            `diverged`, and metrics on validation images.

    Returns:
        The table, and the genotypes that are left out with the reason (`ReliabilityReport`). Where
        a metric is not finite for some of the other genotypes, they are left out for that metric.
        Losses are in nats, accuracies are shares; `sd_genotype`, `sd_seed`, `sd_residual` are the
        standard deviations of the components; `icc` is the ICC of one trial with its 95% interval,
        `icc_k` that of the mean over all seeds, `icc_unpaired` that of one trial against one with
        another seed; `seeds_for_half` is the number of seeds that reach an ICC of 0.5; `tau` is
        Kendall's between seeds; `detectable` is the difference that all seeds find 8 times in 10;
        `samples` and `seconds` (device-seconds) are the cost of a trial up to that epoch.

    Raises:
        UserError: Fewer than two genotypes were trained to the end with every seed.
    """
    cells = curves["seed"].nunique() * curves["epoch"].nunique()
    by_genotype = curves.groupby("genotype")
    diverged = by_genotype["diverged"].any()
    failed = (by_genotype.size() < cells) & ~diverged
    left_out = {str(g): "diverged" for g in diverged.index[diverged]}
    left_out |= {str(g): "failed" for g in failed.index[failed]}
    kept = curves[~curves["genotype"].isin(left_out)]
    if kept["genotype"].nunique() < 2:
        raise UserError(
            f"{len(left_out)} of {len(by_genotype)} genotypes diverged or failed: "
            f"nothing is left to compare"
        )
    rows = []
    for metric in [name for part in PARTS for name in kept if str(name).startswith(part)]:
        if metric.endswith(SPREAD) or kept[metric].isna().any():
            continue
        finite = np.isfinite(kept[metric]).groupby(kept["genotype"]).transform("all")
        own = kept[finite]
        if own["genotype"].nunique() >= 2:
            rows += [_row(metric, epoch, here) for epoch, here in own.groupby("epoch")]
    return pd.DataFrame(rows), left_out


def _row(metric: str, epoch: Any, here: pd.DataFrame) -> dict[str, Any]:
    found = here.pivot(index="genotype", columns="seed", values=metric).to_numpy(dtype=float)
    genotypes, seeds = found.shape
    parts = variance_components(found)
    low, high = icc_interval(found)
    agreement = rank_agreement(found)
    needed = parts.residual / parts.genotype if parts.genotype else np.inf
    return {
        "metric": metric,
        "epoch": int(epoch),
        "samples": int(here["samples"].iloc[0]),
        "seconds": float(here["train_seconds"].mean()),
        "genotypes": genotypes,
        "seeds": seeds,
        "mean": float(found.mean()),
        "sd_genotype": parts.genotype**0.5,
        "sd_seed": parts.seed**0.5,
        "sd_residual": parts.residual**0.5,
        "icc": parts.icc(),
        "icc_low": low,
        "icc_high": high,
        "icc_k": parts.icc(seeds),
        "icc_unpaired": parts.icc_unpaired(),
        "seeds_for_half": float(np.ceil(max(1.0, needed))),
        "tau": agreement.tau,
        "tau_low": agreement.low,
        "tau_high": agreement.high,
        "detectable": parts.detectable(seeds),
    }


def read_table(
    table: pd.DataFrame, left_out: Mapping[str, str], metric: str, task: Task
) -> tuple[str, ...]:
    """Return what a reliability table means for a search by `metric` at the last epoch."""
    row = table[(table["metric"] == metric)].iloc[-1]
    return tuple(_sentences(row, left_out, task.metric(metric)))


def _sentences(row: pd.Series, left_out: Mapping[str, str], metric: Metric) -> Iterator[str]:
    scale, form = metric.scale, metric.format
    unit = metric.unit_of_difference and f" {metric.unit_of_difference}"
    yield (
        f"One trial tells genotypes apart with an ICC of {row['icc']:.2f} "
        f"(95% interval {row['icc_low']:.2f} to {row['icc_high']:.2f}) by {row['metric']}: "
        f"genotypes differ by {scale * row['sd_genotype']:{form}}{unit} (standard deviation), "
        f"the noise of a trial is {scale * row['sd_residual']:{form}}; "
        f"a trial takes {row['seconds']:.1f} device-seconds"
        + (
            f", and the warm host {row['host_seconds']:.1f} once a search."
            if row.get("host_samples", 0)
            else "."
        )
    )
    yield (
        f"Trials of two seeds rank genotypes alike with Kendall's tau {row['tau']:.2f} "
        f"({row['tau_low']:.2f} to {row['tau_high']:.2f}); averaged over {row['seeds']:.0f} seeds "
        f"the ICC is {row['icc_k']:.2f}, and a difference of {scale * row['detectable']:{form}}"
        f"{unit} between two genotypes is found 8 times in 10."
    )
    if row["icc"] < 0.5:
        wanted = (
            "no difference between genotypes was found at all"
            if np.isinf(row["seeds_for_half"])
            else f"averaging {row['seeds_for_half']:.0f} trials a genotype would reach 0.5"
        )
        yield f"An ICC below 0.5 means that a ranking is more noise than signal: {wanted}."
    for why in sorted(set(left_out.values())):
        count = sum(reason == why for reason in left_out.values())
        yield f"{count} genotype(s) {why} with some seed and are left out."
