"""Taking along what a user's script registers to where trials run, and the check that it is there.

Trials run in other processes, and perhaps on other machines, which never run the script.
"""

from __future__ import annotations

import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import ray
from ray import cloudpickle

from sase_ray.execution.failures import reason
from search_spaces.errors import UserError
from search_spaces.ops import load_operations
from search_spaces.registered import FURTHER, Registered, entries_from_outside
from search_spaces.space import SearchSpace


def take_along() -> Registered:
    """Return all that was registered in this process and is not in the packages, by value.

    What cannot be pickled is left out: it may not be used, and `check_there` reports it if it is.
    """
    found = entries_from_outside()
    modules = [sys.modules[name] for name in {name for name, _ in found} if name in sys.modules]
    by_value = [module for module in modules if _is_users_own(module)]
    content = []
    for module in by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        for _, entering in found:
            with suppress(Exception):  # whatever an object's own pickling raises
                content.append(cloudpickle.dumps(entering))
    finally:
        for module in by_value:
            cloudpickle.unregister_pickle_by_value(module)
    if content:
        content += [cloudpickle.dumps(entering) for further in FURTHER for entering in further()]
    Registered.own = tuple(content)
    return Registered(tuple(content))


def _is_users_own(module: ModuleType) -> bool:
    """Return whether a module is installed nowhere, so that other machines lack it."""
    file = getattr(module, "__file__", None)
    if module.__name__ == "__main__" or file is None:  # cloudpickle sends these by value
        return False
    installed = [sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")]
    return not any(Path(file).resolve().is_relative_to(Path(path).resolve()) for path in installed)


def check_there(space: SearchSpace) -> None:
    """Check that operations which were registered from outside exist where trials run.

    Raises:
        UserError: They do not.
    """
    if not space.registered:
        return
    try:
        ray.get(ray.remote(num_cpus=0)(load_operations).remote(space))
    except ray.exceptions.RayError as error:
        raise UserError(
            f"what was registered here cannot be used where trials run ({reason(error)}): name "
            f"operations' files under 'operations' of the space file"
        ) from None
