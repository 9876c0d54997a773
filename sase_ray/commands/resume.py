"""Continuation of an interrupted run, on whatever cluster there is now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, NonNegativeInt, PositiveInt
from rich.console import Console

from sase_ray.commands.compare import Comparison, run_comparison
from sase_ray.commands.reliability import ReliabilityReport, run_study, study_of
from sase_ray.commands.search import SearchReport, run_single_search
from sase_ray.config import Config, load_config
from sase_ray.console import make_console, say
from sase_ray.execution.all_searches import Interrupted
from sase_ray.execution.experiment import Experiment
from sase_ray.results.environment import PACKAGES, package_version
from sase_ray.results.folder import RunFolder
from search_spaces.errors import UserError
from search_spaces.user_files import parse_yaml
from trainables.persistence.kept_files import fetch_kept_files, use_kept_files
from trainables.persistence.store import StorageError, Store


class _About(BaseModel):
    """The record of the run in its config.yaml, as far as a resume needs it."""

    kind: Literal["compare", "search", "reliability"]
    splits: dict[str, Any]
    trials_at_once: PositiveInt
    genotypes: list[str] = []
    final: NonNegativeInt = 0
    files: dict[str, dict[str, str]] = {}


Report = Comparison | SearchReport | ReliabilityReport
RECORDED = "config.yaml"


def resume(run: str | Path, *, console: Console | None = None, **resources: Any) -> Report:
    """Continue an interrupted run: nothing that it has done is done again.

    Searches that had ended are read; the others are given what they had seen before, in the same
    order, and continue from their trials' last checkpoints.

    Args:
        run: Folder of the run, or its place in a storage (a folder or a URI).
        console: Console for progress; standard output if None.
        resources: Cluster settings in place of those recorded: `address`, `cpus_per_trial`,
            `gpus_per_trial`.

    Returns:
        The value that the run itself would have returned.

    Raises:
        UserError: There is no such run, it has ended, it is under way elsewhere, or what it
            depends on has changed.
    """
    console = console or make_console()
    config, about, versions, folder = _read(run, resources)
    if not folder.is_under_way:
        raise UserError(f"the run in {folder.path} has ended: there is nothing to resume")
    changed = [f"{p} {v}" for p, v in versions.items() if p in PACKAGES and v != package_version(p)]
    if changed:
        say(console, f"the run was begun with {', '.join(changed)}: its results may differ now")
    try:
        if about.kind == "reliability":
            experiment = study_of(config, about.genotypes, config.seeds)
        else:
            experiment = Experiment.of(config)
    except UserError as error:
        if not any(path in str(error) for path in _relative_paths(config.model_dump())):
            raise
        raise UserError(f"{error} (relative to the folder that the run was begun in)") from None
    if experiment.problem.search_data.splits != about.splits:
        raise UserError(
            f"the images of data set {config.dataset!r} are not those that the run was begun with"
        )
    interrupted = Interrupted(folder, about.trials_at_once)
    if about.kind == "reliability":
        return run_study(experiment, about.final, console, interrupted)
    if about.kind == "search":
        return run_single_search(experiment, console, interrupted)
    return run_comparison(experiment, console, interrupted)


def _read(
    run: str | Path, resources: Mapping[str, Any]
) -> tuple[Config, _About, Mapping[str, str], RunFolder]:
    text = Store(run).read(RECORDED)
    if text is None:
        raise UserError(f"there is no run in {run}: it has no {RECORDED}")
    try:
        recorded = parse_yaml(text.decode(), f"{run}/config.yaml")
        about, versions = _About(**recorded["run"]), dict(recorded["versions"])
    except UserError:
        raise
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{run}/{RECORDED} was not written by a run that can be resumed") from None
    config = load_config(recorded, {"resources": dict(resources)})
    here = Store(run).place
    if config.storage is not None and here == Store(config.storage).at(Path(here).name).place:
        path = Path(config.results) / Path(here).name
    elif "://" in here:
        raise StorageError(f"{run} is not where the run was recorded to be stored")
    else:
        path = Path(here)
    if about.files:
        fetch_kept_files(about.files, Store(run), path)
        recorded["config"] = use_kept_files(recorded["config"], about.files, path)
        config = load_config(recorded, {"resources": dict(resources)})
    return config, about, versions, RunFolder(path.resolve(), config.storage)


def _relative_paths(value: Any) -> list[str]:
    """Return the texts of a configuration that look like paths relative to the current folder."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [path for one in value for path in _relative_paths(one)]
    is_path = isinstance(value, str) and ("/" in value or Path(value).suffix)
    return [value] if is_path and not Path(value).is_absolute() else []
