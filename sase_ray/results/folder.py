"""The folder of a run: its configuration and its tables, each file written atomically."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from sase_ray.config import Config
from sase_ray.results.environment import PACKAGES, git_commit, hardware, package_version
from sase_ray.results.history import Row
from search_spaces.errors import UserError, shorten
from search_spaces.user_files import dump_yaml
from search_spaces.user_paths import user_path
from trainables.persistence.kept_files import INPUTS, keep_files
from trainables.persistence.store import StorageError, Store, write_whole

UNDER_WAY = "under-way"


class RunFolder:
    """`results/<run>/`: config.yaml, the tables, TensorBoard's logs, and what a resume needs.

    Args:
        path: Path of the folder.
        storage: Folder or URI with a folder of the same name, which holds what a resume needs,
            and at the end a copy of the results; None keeps everything in `path`.
    """

    def __init__(self, path: Path, storage: str | None = None) -> None:
        self.path = path
        self.storage = Store(storage).at(path.name) if storage else None
        self.state = (self.storage or Store(path)).at("state")

    @classmethod
    def create(cls, config: Config) -> RunFolder:
        """Make the folder of a new run.

        Raises:
            UserError: It exists already, or cannot be made; or the storage is of an unknown kind.
        """
        if config.storage is not None:
            Store(config.storage)
        folder = cls.make(config.results, config.run, config.dataset, config.storage)
        if folder.storage is not None and folder.storage.read("config.yaml") is not None:
            shutil.rmtree(folder.path)  # it is new, and holds no more than inputs
            raise UserError(
                f"storage {folder.storage.place} has a run already: choose another --run, resume "
                f"that one, or remove it"
            )
        return folder

    @classmethod
    def make(
        cls, results: str | Path, run: str | None, prefix: str, storage: str | None = None
    ) -> RunFolder:
        """Make the folder `run` in `results`; without a name, it gets the prefix and the time.

        Raises:
            UserError: As for `create`.
        """
        path = user_path(results) / (run or f"{prefix}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
        check_new(path)
        try:
            path.mkdir(parents=True, exist_ok=_has_inputs_only(path))
        except (OSError, ValueError) as error:  # ValueError: raised for a null character
            reason = getattr(error, "strerror", None) or error
            shown = shorten(str(path))
            raise UserError(f"results folder {shown} cannot be made: {reason}") from None
        return cls(path.resolve(), storage)

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's logs, with one folder per strategy."""
        return self.path / "tensorboard"

    @property
    def tune_storage(self) -> str:
        """Location of Ray Tune's own files while searches run."""
        return self.state.at("tune").place

    def write_config(self, config: Config | Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Write the configuration, and everything else that the numbers depend on.

        Raises:
            StorageError: It cannot be written.
        """
        content = {
            "config": config.model_dump(mode="json") if isinstance(config, Config) else {**config},
            "run": {"started": datetime.now(UTC).isoformat(timespec="seconds"), **about},
            "versions": {"python": platform.python_version()}
            | {package: package_version(package) for package in PACKAGES},
            "git": git_commit(),
            "hardware": hardware(),
        }
        text = dump_yaml(content).encode()
        for place in filter(None, (Store(self.path), self.storage)):
            place.write("config.yaml", text)

    def lock(self) -> None:
        """Lock the run against other processes for as long as this one works on it.

        Raises:
            UserError: Another process works on it.
            StorageError: The folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / ".lock", blocking=False, thread_local=False)
            self._lock.acquire()
        except Timeout:
            raise UserError(f"the run in {self.path} is under way in another process") from None
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written: {error}") from None

    def unlock(self) -> None:
        """Release the lock of the run."""
        (self.path / ".lock").unlink(missing_ok=True)
        self._lock.release()

    def begin(self, config: Config, about: Mapping[str, Any]) -> None:
        """Note that the run is under way, and write its configuration and the files it names.

        Raises:
            StorageError: That cannot be done; nothing of the run is left.
        """
        try:
            self.state.write(UNDER_WAY, b"")
            stores = [Store(self.path), *filter(None, [self.storage])]
            files = keep_files(config.model_dump(mode="json"), stores)
            self.write_config(config, {**about, "files": files} if files else about)
        except StorageError:
            self.state.remove()
            self.unlock()
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    @property
    def is_under_way(self) -> bool:
        """Whether the run has begun and not ended."""
        return self.state.read(UNDER_WAY) is not None

    def finish(self) -> None:
        """Copy the results into the storage, if there is one, and remove what a resume needs."""
        if self.storage is not None:
            for path in sorted(self.path.rglob("*")):
                if path.is_file() and path.name != ".lock":
                    self.storage.write(path.relative_to(self.path).as_posix(), path.read_bytes())
        self.state.remove()

    def write_table(self, name: str, rows: Iterable[Row], *, csv: bool = False) -> pd.DataFrame:
        """Write rows as `<name>.parquet`, and as `<name>.csv` if asked; return them as a frame.

        Raises:
            StorageError: They cannot be written; an earlier table is unchanged.
        """
        frame = pd.DataFrame(list(rows))
        self.write_frame(name, frame)
        if csv:
            write_whole(self.path / f"{name}.csv", lambda path: frame.to_csv(path, index=False))
        return frame

    def write_frame(self, name: str, frame: pd.DataFrame) -> None:
        """Write a frame as `<name>.parquet`.

        Raises:
            StorageError: It cannot be written; an earlier table is unchanged.
        """
        write_whole(self.path / f"{name}.parquet", lambda path: frame.to_parquet(path, index=False))


def _has_inputs_only(path: Path) -> bool:
    return os.path.isdir(path) and os.listdir(path) == [INPUTS]


def check_new(path: Path) -> None:
    """Check that a results folder does not exist yet, or holds only files for a run to begin with.

    Raises:
        UserError: It exists.
    """
    # os.path.exists is False for a name that is too long, where Path.exists fails.
    if os.path.exists(path) and not _has_inputs_only(path):
        raise UserError(f"results folder {path} exists: choose another --run, or remove it")


def check_new_run(config: Config) -> None:
    """Check that the run's folder, if it is named, does not exist yet.

    Raises:
        UserError: It exists.
    """
    if config.run:
        check_new(Path(config.results) / config.run)
