"""The Ray cluster: joining or starting one, and how much of it a search may hold."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from sase_ray.config import ResourcesConfig
from sase_ray.tuning import TrialResources
from search_spaces.errors import UserError

DEFAULT_GPUS_PER_TRIAL = 0.25

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
        trial: what one trial holds.
        total: trials that the cluster can run at once.
        room_for_workers: workers of a common training that it can run at once, each with the CPUs
            of a trial and, where trials use GPUs, one of its own.
    """

    trial: TrialResources
    total: int
    room_for_workers: int = 1

    def share(self, searches: int) -> tuple[int, int]:
        """Return how many searches run side by side, and how many trials each runs at once."""
        side_by_side = max(1, min(searches, self.total))
        return side_by_side, max(1, self.total // side_by_side)

    def check_workers(self, workers: int) -> None:
        """Check that the cluster can run so many workers of one final training.

        Raises:
            UserError: it never will.
        """
        if workers > max(1, self.room_for_workers):
            gpu = " and a GPU" if self.trial.gpus else ""
            raise UserError(
                f"final.workers is {workers}, but the cluster has room for "
                f"{self.room_for_workers}, at {self.trial.cpus:g} CPUs{gpu} each"
            )


@contextmanager
def connected(config: ResourcesConfig) -> Iterator[Slots]:
    """Join the cluster (or start a local one) for the duration of a comparison.

    Raises:
        UserError: there is no cluster at the address, or no node of it can hold one trial.
    """
    already = ray.is_initialized()
    if not already:
        _connect(config.address)
    try:
        yield _slots(config)
    finally:
        if not already:
            ray.shutdown()


def _connect(address: str | None) -> None:
    os.environ.update(QUIET)
    # A job on a cluster finds the cluster in the environment. Without one, a cluster of our own,
    # not one that somebody else happens to run on this machine.
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if "://" not in address and ":" in address:
        _check_reachable(address)
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": QUIET},
        )
    # Ray has no exception of its own for a cluster that does not come up.
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"no Ray cluster at {address!r}: {first}") from None


def _check_reachable(address: str) -> None:
    # Ray itself tries for many minutes before it gives an unreachable address up.
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise UserError(f"no Ray cluster at {address!r}: {error}") from None


def _slots(config: ResourcesConfig) -> Slots:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most_gpus = max(node.get("GPU", 0.0) for node in nodes)
    most_cpus = max(node.get("CPU", 0.0) for node in nodes)
    gpus = config.gpus_per_trial
    if gpus is None:
        gpus = min(DEFAULT_GPUS_PER_TRIAL, most_gpus)
    if gpus > most_gpus:
        raise UserError(
            f"resources.gpus_per_trial is {gpus:g}, but the largest node of the cluster has "
            f"{most_gpus:g} GPUs"
        )
    if config.cpus_per_trial > most_cpus:
        raise UserError(
            f"resources.cpus_per_trial is {config.cpus_per_trial:g}, but the largest node of the "
            f"cluster has {most_cpus:g} CPUs"
        )
    total = _room(nodes, config.cpus_per_trial, gpus)
    if not total:
        raise UserError(
            f"one trial holds {config.cpus_per_trial:g} CPUs and {gpus:g} GPUs, and no node of the "
            f"cluster has both"
        )
    return Slots(
        TrialResources(cpus=config.cpus_per_trial, gpus=gpus),
        total,
        _room(nodes, config.cpus_per_trial, 1.0 if gpus else 0.0),
    )


def _room(nodes: list[dict[str, float]], cpus: float, gpus: float) -> int:
    return sum(
        min(
            int(node.get("CPU", 0.0) / cpus + 1e-6),
            int(node.get("GPU", 0.0) / gpus + 1e-6) if gpus else 10**9,
        )
        for node in nodes
    )
