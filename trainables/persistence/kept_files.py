"""Copies of the files that a run was made with, in its folder, with their digests.

With them a run is resumed or repeated when the original files are gone or have changed.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from search_spaces.backbones.registry import OWN_PREFIX
from search_spaces.errors import UserError
from search_spaces.user_paths import user_path
from trainables.persistence.store import Store

INPUTS = "inputs"
"""Folder of the copies within a run's folder."""

_KEYS = {
    "host.weights": "",
    "backbone.options.weights": "",
    "backbone.name": OWN_PREFIX,
    "data.root": "",
}
"""Keys of a configuration that may name a file, and what is before the path."""


def keep_files(values: Mapping[str, Any], stores: Iterable[Store]) -> dict[str, dict[str, str]]:
    """Copy the files that a configuration names.

    They are the weights and the network of the host. Arrays of images are not copied, but recorded
    where they are in the run's folder.

    Args:
        values: Configuration as plain values.
        stores: Stores of the run; the first is its folder.

    Returns:
        The place in the run's folder (`file`) and digest (`sha256`) of each file, by its key.

    Raises:
        StorageError: A copy cannot be written.
    """
    stores = list(stores)
    inputs = Path(stores[0].place) / INPUTS
    kept = {}
    for key, prefix in _KEYS.items():
        value = _get(values, key)
        if not isinstance(value, str) or not value.startswith(prefix):
            continue
        path = user_path(value.removeprefix(prefix))
        if key == "data.root":
            file = (values["data"].get("options") or {}).get("file")
            if not isinstance(file, str) or path.resolve() != inputs:
                continue
            path /= file
        if not path.is_file():
            continue
        content = path.read_bytes()
        inside = path.resolve().parent == inputs
        name = path.name if inside else f"{key}-{path.name}"
        for store in stores[inside:]:
            store.at(INPUTS).write(name, content)
        digest = hashlib.sha256(content).hexdigest()
        kept[key] = {"file": f"{INPUTS}/{name}", "sha256": digest}
    return kept


def use_kept_files(values: Mapping[str, Any], record: Any, folder: Path) -> dict[str, Any]:
    """Return a configuration that names the copies in a run's folder in place of the originals.

    Args:
        values: Configuration as plain values.
        record: What `keep_files` returned, as it was written; anything else is not used.
        folder: Folder of the run.

    Raises:
        UserError: A copy has changed.
    """
    changed = copy.deepcopy(dict(values))
    for key, name, digest in _entries(record):
        if not isinstance(_get(values, key), str):
            continue
        path = folder.resolve() / INPUTS / name
        if not path.is_file():
            continue
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise UserError(f"{path} is not the file that the run was made with")
        *parts, last = key.split(".")
        section = changed
        for part in parts:
            section = section[part]
        section[last] = str(path.parent if key == "data.root" else f"{_KEYS[key]}{path}")
    return changed


def fetch_kept_files(record: Any, store: Store, folder: Path) -> None:
    """Copy a run's kept files from a store into its folder, where they are missing there.

    Raises:
        StorageError: One cannot be read or written.
    """
    for _, name, _ in _entries(record):
        if not (folder / INPUTS / name).is_file():
            content = store.at(INPUTS).read(name)
            if content is not None:
                Store(folder).at(INPUTS).write(name, content)


def _entries(record: Any) -> list[tuple[str, str, str]]:
    """Return key, name and digest of each entry; a record by others may hold anything."""
    if not isinstance(record, dict):
        return []
    entries = []
    for key, entry in record.items():
        if key not in _KEYS or not isinstance(entry, dict):
            continue
        folder, _, name = str(entry.get("file")).partition("/")
        if folder == INPUTS and name not in ("", ".", "..") and "/" not in name:
            entries.append((key, name, str(entry.get("sha256"))))
    return entries


def _get(values: Mapping[str, Any], key: str) -> Any:
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
