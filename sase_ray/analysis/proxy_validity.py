"""Validity of a proxy protocol: how well its scores rank the results of the final protocol."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sase_ray.analysis.proxy_reliability import (
    protocol_key,
    read_measured,
    study_command,
    without_speed,
)
from sase_ray.analysis.reliability_table import scores
from sase_ray.config import Config
from sase_ray.protocols import FOLDER
from sase_ray.statistics.validity import Validity, validity
from sase_ray.statistics.variance_components import Scores
from search_spaces.errors import UserError
from trainables.metrics import Metric
from trainables.tasks.contract import Task

BUNDLED = FOLDER / "validity.csv"
FEWEST = 3
"""Minimum number of genotypes with all results, for a validity to be estimated."""
COLUMNS = tuple(Validity.__dataclass_fields__)
NUMBERS = dict.fromkeys(("epoch", "genotypes", "seeds", "final_seeds", *COLUMNS), "float64")
"""Numeric columns that are read from a validity table, and their type."""


def final_key(config: Config) -> str:
    """Return a key of the final protocol that a validity holds for, beside `protocol_key`."""
    what = config.model_dump(mode="json", include={"final", "task", "task_options"})
    for name in ("seeds", "workers", "gradcam_images", "keep_weights"):  # they change no training
        del what["final"][name]
    text = json.dumps(without_speed(what), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def validity_table(
    curves: pd.DataFrame, finals: pd.DataFrame, task: Task, config: Config
) -> pd.DataFrame:
    """Compute the validity of every validation metric at every epoch, for every final metric.

    Both are on the scale on which their metric is compared, see `Metric.compared`.

    Args:
        curves: One row per evaluation of a trial, as for `reliability_table`; its genotypes have
            been trained to the end by every seed.
        finals: One row per final training: `genotype`, `seed`, and the task's metrics on test
            images. Genotypes that lack a finite result are left out.
        task: Task whose metrics are compared.
        config: Configuration of the study.

    Returns:
        One row per metric, epoch and final metric, with the columns of `Validity`, `protocol` and
        `final_protocol` (see `protocol_key` and `final_key`), and the numbers of `genotypes`,
        `seeds` and `final_seeds`.

    Raises:
        UserError: Fewer than `FEWEST` genotypes have all results.
    """
    keys = {"protocol": protocol_key(config), "final_protocol": final_key(config)}
    rows: list[dict[str, Any]] = []
    for final_metric in task.reported("test"):
        results = finals.pivot(index="genotype", columns="seed", values=final_metric)
        results = results[np.isfinite(results).all(axis=1)]
        for metric in task.reported("val"):
            for epoch, here in curves.groupby("epoch"):
                found = scores(here, metric, ())
                own = found.index[np.isfinite(found).all(axis=1)].intersection(results.index)
                if len(own) < FEWEST:
                    continue
                first = _lower_is_better(task.metric(metric), found.loc[own])
                last = _lower_is_better(task.metric(final_metric), results.loc[own])
                counts = {
                    "genotypes": len(own),
                    "seeds": first.shape[1],
                    "final_seeds": last.shape[1],
                }
                head = {"metric": metric, "epoch": int(str(epoch)), "final_metric": final_metric}
                rows.append(keys | head | counts | vars(validity(first, last)))
    if not rows:
        raise UserError(f"fewer than {FEWEST} genotypes were trained to the end by both protocols")
    return pd.DataFrame(rows)


def _lower_is_better(metric: Metric, stored: pd.DataFrame) -> Scores:
    """Return scores on the scale on which the metric is compared, lower is better."""
    return metric.sign * metric.compared(stored)


def of_interest(table: pd.DataFrame, config: Config) -> pd.Series | None:
    """Return the row of the searches' metric at the last epoch, and of the final comparison's."""
    own = table[
        (table["metric"] == config.metric)
        & (table["final_metric"] == config.make_task().final)
        & (table["protocol"] == protocol_key(config))
        & (table["final_protocol"] == final_key(config))
    ]
    return own.sort_values("epoch").iloc[-1] if len(own) else None


def measured_validity(config: Config) -> pd.Series | None:
    """Return the validity of a configuration's proxy for its final protocol, if it is known.

    It is looked up as `measured_reliability` is.

    Raises:
        UserError: The file in the folder that the configuration names is no such table.
    """
    path = BUNDLED
    if config.reliability is not None:
        named = Path(config.reliability)
        path = (named if os.path.isdir(named) else named.parent) / "validity.csv"
    if not path.exists():
        return None
    text = ("protocol", "final_protocol", "metric", "final_metric")
    return of_interest(read_measured(path, "validity", text, NUMBERS), config)


def validity_sentences(config: Config, row: pd.Series | None, run: str) -> Iterator[str]:
    """Describe how valid a proxy protocol is.

    Args:
        config: Configuration of the run.
        row: Result of `measured_validity`.
        run: The run's folder, named in the command that measures the validity.
    """
    if row is None:
        yield (
            "Whether the proxy protocol ranks as the final protocol does has not been measured: "
            f"{study_command(config, run, 'validity', '--final', '2')} does."
        )
        return
    yield (
        f"Validity of the proxy protocol: one trial ranks genotypes by {row['metric']} as final "
        f"trainings do by {row['final_metric']} with Kendall's tau {row['tau']:.2f} "
        f"({row['tau_low']:.2f} to {row['tau_high']:.2f}), with the noise of both taken out "
        f"{row['true_tau']:.2f} ({row['true_tau_low']:.2f} to {row['true_tau_high']:.2f}; "
        f"{row['genotypes']:.0f} genotypes, {row['seeds']:.0f} trials and "
        f"{row['final_seeds']:.0f} final trainings each)."
    )
    if np.isfinite(row["kept"]):
        yield (
            f"The first of {row['genotypes']:.0f} genotypes by one trial keeps "
            f"{100 * row['kept']:.0f}% ({100 * row['kept_low']:.0f} to "
            f"{100 * row['kept_high']:.0f}%) of what the best gains over the mean."
        )
    if not row["tau_low"] > 0:
        yield (
            "It has not been shown that trials rank what the final trainings rank: a search that "
            "finds the best by trials may find nothing."
        )
