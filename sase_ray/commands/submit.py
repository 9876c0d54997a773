"""Submission of a comparison to a cluster as a job."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sase_ray.cluster.job_client import connect, is_job_id, start_job
from sase_ray.config import Config, load_config, parse_assignment
from sase_ray.protocols import bundled_or_own
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace, space_names
from search_spaces.user_files import read_yaml_mapping
from search_spaces.user_paths import user_path


def submit(
    config: str | Path,
    assignments: Sequence[str] = (),
    *,
    address: str | None = None,
    working_dir: str | Path | None = None,
    job_id: str | None = None,
) -> str:
    """Start ``python -m sase_ray compare --config ...`` as a job of a cluster.

    The job gets a folder with the configuration, and with the space file and its operation files
    if the configuration names a space by its path. They are arranged there as they are here.

    Args:
        config: Configuration file, as for `load_config`.
        assignments: Texts such as ``proxy.epochs=5``.
        address: Address of the cluster's dashboard, see `api_address`.
        working_dir: Folder to send in place of only these files, which it must contain: for
            example that of this project, if the cluster does not have it installed. What its
            .gitignore names is not sent.
        job_id: Name of the job; by default Ray makes one up.

    Returns:
        Id of the job.

    Raises:
        UserError: The configuration is wrong or cannot work on the cluster, and nothing was sent;
            or the cluster is out of reach, expects another token, or has a job of that name.
    """
    if job_id is not None and not is_job_id(job_id):
        raise UserError(f"name {job_id!r}: expected letters, digits, '.', '_' and '-'")
    settings = load_config(config, assignments=assignments)
    base, files = _needed_files(bundled_or_own(user_path(config)), settings)
    _check(settings, in_working_dir=working_dir is not None)
    if working_dir is not None:
        base = _absolute(user_path(working_dir))
        outside = [file for file in files if not file.is_relative_to(base)]
        if outside:
            raise UserError(f"{outside[0]} does not lie in --working-dir {base}, so is not sent")
    command = ["python", "-m", "sase_ray", "compare", "--config", str(files[0].relative_to(base))]
    for text in assignments:
        command += ["--set", text]
    for key, value in _expanded(files[0], assignments, settings):
        command += ["--set", f"{key}={json.dumps(value)}"]  # a home and variables of this machine
    if len(files) > 1 and settings.space != str(files[1].relative_to(base)):
        command += ["--set", f"space={files[1].relative_to(base)}"]
    client = connect(address)
    with tempfile.TemporaryDirectory(prefix="sase-ray-") as folder:
        if working_dir is None:
            for file in files:
                target = Path(folder) / file.relative_to(base)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        sent = folder if working_dir is None else str(base)
        return start_job(client, shlex.join(command), sent, job_id)


def _expanded(
    file: Path, assignments: Sequence[str], settings: Config
) -> Iterator[tuple[str, Any]]:
    """Yield the keys whose values were written with `~` or `$`, and what these mean here."""
    given = [read_yaml_mapping(file, "configuration"), *map(parse_assignment, assignments)]
    values = settings.model_dump(mode="json", exclude={"space"})

    def walk(raw: Any, value: Any, key: str) -> Iterator[tuple[str, Any]]:
        if isinstance(raw, dict) and isinstance(value, dict):
            for name in raw.keys() & value.keys():
                yield from walk(raw[name], value[name], f"{key}.{name}" if key else name)
        elif raw != value and isinstance(raw, str) and {*raw} & {*"~$"}:
            yield key, value

    yield from {key: value for one in given for key, value in walk(one, values, "")}.items()


def _check(config: Config, in_working_dir: bool) -> None:
    """Refuse what would fail on the cluster, as far as can be known without the data."""
    # Imported here, since it loads torch, for which `sase-ray --help` need not wait.
    from sase_ray.strategies.catalogue import make_strategy
    from search_spaces.baselines import baseline_attention

    for name in config.strategies:
        make_strategy(name, config.strategy_options.get(name))
    for name in config.baselines:
        baseline_attention(name)
    if not _for_every_node(config.results):
        raise UserError(
            f"results: {config.results!r} would be a folder of the job, which Ray deletes: name "
            f"one that all nodes share, e.g. --set results=/mnt/shared/results"
        )
    for key, path in (("data.root", config.data.root), ("reliability", config.reliability)):
        if path is not None and not _for_every_node(path) and not in_working_dir:
            raise UserError(
                f"{key}: {path!r} is not sent with the job: name a folder that all nodes share"
            )


def _for_every_node(path: str) -> bool:
    return path.startswith("/") or "://" in path


def _needed_files(config: Path, settings: Config) -> tuple[Path, list[Path]]:
    """Return the folder that the job gets, and the files in it: config, space, operations."""
    files = [_absolute(config)]
    if settings.space not in space_names():
        space = SearchSpace.load(settings.space)
        files.append(_absolute(settings.space))
        for operations in space.operation_files:
            files.append(_absolute(operations.path))
            if not files[-1].is_relative_to(files[1].parent):
                raise UserError(
                    f"space file {settings.space}: operations file {operations.path} is not sent "
                    f"with the job: keep it beside the space file, or in a folder below"
                )
    here = Path.cwd()
    base = os.path.commonpath([here, *(file.parent for file in files)])
    return Path(base), files


def _absolute(path: str | Path) -> Path:
    # Links are not resolved: files are to be in the job's folder where they seem to be here.
    return Path(os.path.abspath(path))
