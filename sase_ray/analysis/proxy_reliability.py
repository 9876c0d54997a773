"""Reliability of a proxy protocol, measured before the run or estimated from its trials."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sase_ray.config import Config
from sase_ray.protocols import FOLDER
from sase_ray.statistics.variance_components import Scores, icc_interval, variance_components
from search_spaces.errors import UserError, shorten
from search_spaces.space import SearchSpace, describe_space

BUNDLED = FOLDER / "reliability.csv"
MOST_ROWS = 100_000
NUMBERS = dict.fromkeys(("epoch", "genotypes", "seeds", "icc", "icc_low", "icc_high"), "float64")
"""Numeric columns that are read from a reliability table, and their type."""
FEWEST = 3
"""Minimum number of genotypes, trained by all seeds, for an estimate from a run's own trials."""


def without_speed(value: Any) -> Any:
    """Return a dumped configuration without settings that change only the speed of training."""
    if isinstance(value, dict):
        return {key: without_speed(one) for key, one in value.items() if key != "cuda_graphs"}
    return value


def protocol_of(config: Config) -> dict[str, Any]:
    """Return the part of a configuration that a trial's result depends on, except the space."""
    what = config.model_dump(
        mode="json", include={"dataset": True, "data": True, "backbone": True, "proxy": True}
    )
    del what["data"]["root"]  # the same images, wherever they are stored
    if config.host is not None:
        what["host"] = config.host.model_dump(mode="json")
    # Left out if unset, so that keys of earlier versions stay valid.
    for name in ("shift", "image_size", "channels", "normalisation"):
        if what["data"][name] is None:
            del what["data"][name]
    for name in ("source", "classifier"):
        if config.host is not None and what["host"][name] is None:
            del what["host"][name]
    if config.planted is not None:
        what["planted"] = config.planted.model_dump(mode="json", exclude={"same"})
    return dict(without_speed(what))


def protocol_key(config: Config) -> str:
    """Return a key of what a reliability holds for: data, space, host and proxy protocol."""
    described = describe_space(SearchSpace.load(config.space))
    space = {k: v for k, v in described.items() if k not in {"name", "source"}}
    text = json.dumps(protocol_of(config) | {"space": space}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def measured_reliability(config: Config) -> pd.Series | None:
    """Return the reliability table's row for the metric and the last epoch, if it is known.

    The table is looked up in the folder or file that `config.reliability` names, otherwise among
    the bundled protocols.

    Raises:
        UserError: The named file is missing, is no such table, or is of another protocol.
    """
    key = protocol_key(config)
    if config.reliability is None:
        table = _read(BUNDLED) if BUNDLED.exists() else None
        if table is None or key not in set(table["protocol"]):
            return None
    else:
        path = Path(config.reliability)
        path = path / "reliability.csv" if os.path.isdir(path) else path
        table = _read(path)
        if key not in set(table["protocol"]):
            raise UserError(
                f"reliability: {path} was measured for another protocol, space, host or data"
            )
    own = table[(table["protocol"] == key) & (table["metric"] == config.metric)]
    return own.sort_values("epoch").iloc[-1] if len(own) else None


def _read(path: Path) -> pd.DataFrame:
    return read_measured(path, "reliability", ("protocol", "metric"), NUMBERS)


def read_measured(
    path: Path, what: str, text: Sequence[str], numbers: Mapping[str, str]
) -> pd.DataFrame:
    """Read a table that `sase-ray reliability` wrote.

    Args:
        path: File of the table.
        what: What it holds, for the error.
        text: Columns of text that it must have.
        numbers: Type of each column of numbers that it must have.

    Raises:
        UserError: It cannot be read, or is no such table.
    """
    try:
        # Not decompressed: a small file could fill the memory.
        table = pd.read_csv(path, compression=None, nrows=MOST_ROWS)
        return table.astype(dict.fromkeys(text, "str") | dict(numbers))
    except (OSError, ValueError, KeyError, OverflowError) as error:
        raise UserError(
            f"{what}: {path} is not a table of `sase-ray reliability` ({shorten(str(error))})"
        ) from None


def repeated_scores(trials: pd.DataFrame, metric: str) -> Scores | None:
    """Return the scores (genotype, seed) of genotypes that all seeds have trained to the end.

    Args:
        trials: Trials of black-box searches: `genotype`, `seed`, `status`, and the metric.
        metric: Name of the metric.

    Returns:
        The scores; None if there are fewer than `FEWEST` such genotypes, or only one seed.
    """
    finished = trials[trials["status"] == "finished"]
    table = finished.pivot_table(index="genotype", columns="seed", values=metric).dropna()
    if min(len(table) / FEWEST, table.shape[1] / 2) < 1:
        return None
    return table.to_numpy(dtype=float)


def study_command(config: Config, run: str, what: str, *options: str) -> str:
    """Return the command that measures a run's proxy protocol, as it can be pasted into a shell.

    Args:
        config: Configuration of the run.
        run: The run's folder.
        what: What is measured, the ending of the study's name.
        options: Further options of the command.
    """
    words = ["sase-ray", "reliability", *options, "--config", f"{run}/config.yaml"]
    words += ["--run", f"{Path(run).name}-{what}"]
    if config.planted is not None and not config.planted.same:
        words += ["--set", "planted.same=true"]  # a study compares trainings of several seeds
    return f"`{shlex.join(words)}`"


def reliability_sentences(
    config: Config, measured: pd.Series | None, scores: Scores | None, run: str
) -> Iterable[str]:
    """Describe how reliable the searches' proxy protocol is.

    Args:
        config: Configuration of the comparison.
        measured: Result of `measured_reliability`.
        scores: Result of `repeated_scores`.
        run: The run's folder, named in the command that measures the reliability.
    """
    if measured is not None:
        icc, low, high = (float(measured[key]) for key in ("icc", "icc_low", "icc_high"))
        how = f"{measured['genotypes']:.0f} genotypes with {measured['seeds']:.0f} seeds each"
    elif scores is not None:
        icc = variance_components(scores).icc()
        low, high = icc_interval(scores)
        how = f"from the {len(scores)} genotypes that {scores.shape[1]} searches trained alike"
    else:
        yield (
            "How reliable the proxy protocol is has not been measured: "
            f"{study_command(config, run, 'reliability')} does."
        )
        return
    yield (
        f"Reliability of the proxy protocol: one trial ranks genotypes by {config.metric} with an "
        f"ICC of {icc:.2f} (95% interval {low:.2f} to {high:.2f}; {how})."
    )
    if high < 0.5:
        yield "The searches ranked mostly luck: no strategy can do much better than chance on it."
    elif icc < 0.5:
        yield "Below 0.5 a trial is more noise than signal: the searches may have ranked luck."
