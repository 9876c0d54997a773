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
from dataclasses import dataclass, replace

import ray
import torch
from rich.console import Console

from sase_ray.cli.output import say
from sase_ray.config import ResourcesConfig
from sase_ray.execution.one_search import TrialResources
from search_spaces.errors import UserError

DEFAULT_GPUS_PER_TRIAL = 0.25
"""Where the memory of the GPUs cannot be told."""

MOST_TO_A_GPU = 8
HEADROOM = 1.3
"""On the bytes of a training step, for what operations need for a moment."""

CONTEXT = 2**30
"""Bytes that a process takes of a GPU before it trains."""

PROBE_SECONDS = 60.0

WATCH_SECONDS = 2.0
LOST_SECONDS = 10.0
"""A head that has not answered for so long is gone."""

QUIET = {
    # Tune would print a table of its own, and warn of snapshots that cost milliseconds here.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class Slots:
    """How the cluster is shared.

    Attributes:
        config: what was asked for.
        trial: what one trial holds, and one worker of a final training.
        supernet: what the trial of a one-shot search holds.
    """

    config: ResourcesConfig
    trial: TrialResources
    supernet: TrialResources

    @property
    def total(self) -> int:
        """Trials that the cluster as it is now can run at once."""
        return sum(_fits(node, self.trial) for node in _nodes())

    @property
    def room_for_workers(self) -> int:
        """Workers of a common training that the cluster can run at once.

        Each has the CPUs of a trial and, where trials use GPUs, one of its own.
        """
        worker = replace(self.trial, gpus=1.0 if self.trial.gpus else 0.0)
        return sum(_fits(node, worker) for node in _nodes())

    def share(self, searches: int) -> int:
        """Return how many trials each of some searches runs at once, from its begin to its end.

        It is the same for all, and does not change while they run: a search that hears of its
        trials one after the other learns more from each than one that runs many at once.
        """
        return self.config.trials_at_once or max(1, self.total // max(1, searches))

    def has_room_for(self, searches: int, trials_at_once: int) -> bool:
        """Return whether some searches may run side by side; one may always.

        Where the number of their trials is given, all may: what finds no room waits for it, which
        makes an autoscaling cluster grow.
        """
        return (
            self.config.trials_at_once is not None
            or searches <= 1
            or searches * trials_at_once <= self.total
        )

    def check_workers(self, workers: int) -> None:
        """Check that the cluster can run so many workers of one final training.

        Raises:
            UserError: it never will.
        """
        # Where nodes come as they are asked for, there may be room later.
        if self.config.trials_at_once is None and workers > max(1, self.room_for_workers):
            gpu = " and a GPU" if self.trial.gpus else ""
            raise UserError(
                f"final.workers is {workers}, but the cluster has room for "
                f"{self.room_for_workers}, at {self.trial.cpus:g} CPUs{gpu} each"
            )


@contextmanager
def connected(
    config: ResourcesConfig,
    on_loss: Callable[[], None] = lambda: None,
    footprints: Callable[[], tuple[int, int]] | None = None,
) -> Iterator[Slots]:
    """Join the cluster (or start a local one) for the duration of a run.

    Args:
        config: which cluster, and what a trial holds.
        on_loss: called when the cluster's head is gone, before this process ends with exit code 1:
            Ray itself would keep it waiting, and then end it without a word.
        footprints: returns the bytes that a trial takes of a GPU's memory, and a supernet's;
            asked only where the cluster has GPUs and their shares are not given.

    Raises:
        UserError: there is no cluster at the address, or no node of it can hold one trial.
    """
    already = ray.is_initialized()
    if not already:
        _connect(config.address)
    try:
        with _watched(on_loss):
            yield _slots(config, footprints)
    finally:
        if not already:
            ray.shutdown()


@contextmanager
def _watched(on_loss: Callable[[], None]) -> Iterator[None]:
    """End this process if the head of the cluster cannot be reached any more."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    left = threading.Event()

    def watch() -> None:
        missed = 0
        while not left.wait(WATCH_SECONDS):
            missed = 0 if _reachable(host, port) else missed + 1
            if missed * WATCH_SECONDS >= LOST_SECONDS:
                say(
                    Console(stderr=True),
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
    # A job on a cluster finds the cluster in the environment. Without one, a cluster of our own,
    # not one that somebody else happens to run on this machine.
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if "://" not in address and ":" in address:
        _check_reachable(address)
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        try:
            _init(address)
        except Exception as error:
            # A busy machine may take longer to start a cluster than the 30 s that Ray waits.
            if address != "local" or "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            _init(address)
    # Ray has no exception of its own for a cluster that does not come up.
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"no Ray cluster at {address!r}: {first}") from None
    if threading.current_thread() is threading.main_thread() and callable(on_terminate):
        signal.signal(signal.SIGTERM, on_terminate)  # Ray has put one of its own there


def _check_reachable(address: str) -> None:
    # Ray itself tries for many minutes before it gives an unreachable address up.
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise UserError(f"no Ray cluster at {address!r}: {error}") from None


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fits(node: dict[str, float], trial: TrialResources) -> int:
    """Return how many trials a node has room for; fractions are of one GPU each."""
    by_cpu = int(node.get("CPU", 0.0) / trial.cpus + 1e-6)
    if not trial.gpus:
        return by_cpu
    if trial.gpus < 1:
        return min(by_cpu, int(node.get("GPU", 0.0)) * int(1 / trial.gpus + 1e-6))
    return min(by_cpu, int(node.get("GPU", 0.0) / trial.gpus + 1e-6))


def _slots(
    config: ResourcesConfig, footprints: Callable[[], tuple[int, int]] | None = None
) -> Slots:
    nodes = _nodes()
    most_gpus = max(node.get("GPU", 0.0) for node in nodes)
    most_cpus = max(node.get("CPU", 0.0) for node in nodes)
    shares = [config.gpus_per_trial, config.gpus_per_supernet]
    if None in shares:
        memory = _gpu_memory() if most_gpus and footprints is not None else 0
        guessed = [DEFAULT_GPUS_PER_TRIAL] * 2
        if memory and footprints is not None:
            guessed = [_share(footprint, memory) for footprint in footprints()]
        shares = [
            min(guess, most_gpus) if share is None else share
            for share, guess in zip(shares, guessed, strict=True)
        ]
    gpus, supernet_gpus = (float(share or 0.0) for share in shares)
    cpus = config.cpus_per_trial
    slots = Slots(config, TrialResources(cpus, gpus), TrialResources(cpus, supernet_gpus))
    if config.trials_at_once is not None:  # nodes that hold them may come
        return slots
    for name, share in (("gpus_per_trial", gpus), ("gpus_per_supernet", supernet_gpus)):
        if share > most_gpus:
            raise UserError(
                f"resources.{name} is {share:g}, but the largest node of the cluster has "
                f"{most_gpus:g} GPUs"
            )
    if config.cpus_per_trial > most_cpus:
        raise UserError(
            f"resources.cpus_per_trial is {config.cpus_per_trial:g}, but the largest node of the "
            f"cluster has {most_cpus:g} CPUs"
        )
    if not slots.total:
        raise UserError(
            f"one trial holds {config.cpus_per_trial:g} CPUs and {gpus:g} GPUs, and no node of the "
            f"cluster has both"
        )
    return slots


def _share(footprint: int, memory: int) -> float:
    """Return the share of a GPU that holds a training: one in a whole number."""
    return 1 / max(1, min(MOST_TO_A_GPU, int(memory / (HEADROOM * footprint + CONTEXT))))


def _gpu_memory() -> int:
    """Return the bytes of a GPU of the cluster; 0 if there is none that can be asked."""
    asked = ray.remote(num_cpus=0, num_gpus=0.01)(_own_gpu_memory).remote()
    ended, _ = ray.wait([asked], timeout=PROBE_SECONDS)
    if not ended:
        ray.cancel(asked, force=True)
        return 0
    memory: int = ray.get(asked)
    return memory


def _own_gpu_memory() -> int:
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
