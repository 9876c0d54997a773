"""The Ray cluster: joining or starting one, and how much of it a search may hold."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

from sase_ray.cluster.slots import Slots, slots_of
from sase_ray.config import ResourcesConfig
from sase_ray.console import make_console, say
from search_spaces.errors import UserError

WATCH_SECONDS = 2.0
LOST_SECONDS = 10.0
"""Time without an answer after which a head counts as gone."""

MAX_STARTS = 6
"""Number of times that a cluster of our own is started before the machine counts as too busy."""

QUIET = {
    # Tune would print a table of its own, and warn of snapshots that cost milliseconds here.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@contextmanager
def connected(
    config: ResourcesConfig,
    on_loss: Callable[[], None] = lambda: None,
    footprints: Callable[[], tuple[int, int]] | None = None,
) -> Iterator[Slots]:
    """Join the cluster (or start a local one) for the duration of a run.

    Args:
        config: Which cluster to use, and what a trial holds.
        on_loss: Called when the cluster's head is gone, before this process ends with exit code 1:
            Ray itself would keep it waiting, and then end it without a message.
        footprints: Returns the bytes of a GPU's memory that a trial takes, and those of a
            supernet; called only if the cluster has GPUs and their shares are not given.

    Raises:
        UserError: There is no cluster at the address, or no node of it can hold one trial.
    """
    already = ray.is_initialized()
    if not already:
        _connect(config.address)
    try:
        with _watched(on_loss):
            yield slots_of(config, footprints)
    finally:
        if not already:
            ray.shutdown()


@contextmanager
def _watched(on_loss: Callable[[], None]) -> Iterator[None]:
    """End this process if the head of the cluster can no longer be reached."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    left = threading.Event()

    def watch() -> None:
        missed = 0
        while not left.wait(WATCH_SECONDS):
            missed = 0 if _reachable(host, port) else missed + 1
            if missed * WATCH_SECONDS >= LOST_SECONDS:
                say(
                    make_console(stderr=True),
                    f"error: the head of the Ray cluster at {host}:{port} is gone",
                )
                on_loss()
                sys.stdout.flush()
                os._exit(1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        watcher.join()


def _reachable(host: str, port: str) -> bool:
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=WATCH_SECONDS).close()
    except OSError:
        return False
    return True


def _init(address: str) -> None:
    ray.init(
        address=address,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": QUIET},
    )


def _connect(address: str | None) -> None:
    os.environ.update(QUIET)
    # A job on a cluster finds the cluster in the environment. Otherwise we start a cluster of our
    # own, rather than join one that somebody else happens to run on this machine.
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if "://" not in address and ":" in address:
        _check_reachable(address)
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        for tries_left in reversed(range(MAX_STARTS)):
            try:
                _init(address)
                break
            except Exception as error:
                # A busy machine may take longer to start a cluster than the 30 s that Ray waits.
                slow = "timed out during startup" in str(error)
                if address != "local" or not slow or not tries_left:
                    raise
                ray.shutdown()
    # Ray has no exception of its own for a cluster that does not start.
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"no Ray cluster at {address!r}: {first}") from None
    if threading.current_thread() is threading.main_thread() and callable(on_terminate):
        signal.signal(signal.SIGTERM, on_terminate)  # Ray has installed its own handler


def _check_reachable(address: str) -> None:
    # Ray itself tries for many minutes before it gives up on an unreachable address.
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise UserError(f"no Ray cluster at {address!r}: {error}") from None
