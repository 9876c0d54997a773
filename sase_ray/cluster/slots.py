"""The resources that a trial holds, and how many trials fit on the cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import ray
import torch
from ray import tune

from sase_ray.config import ResourcesConfig
from search_spaces.errors import UserError


@dataclass(frozen=True)
class TrialResources:
    """Resources that one trial holds while it runs; fractions of a GPU share it."""

    cpus: float = 1.0
    gpus: float = 0.0

    def reserved(self, factor: float = 1) -> tune.PlacementGroupFactory:
        """Return the resources that Tune reserves.

        Args:
            factor: Factor on a share of one GPU, up to the whole; a number of whole GPUs is kept.
        """
        gpus = min(1.0, factor * self.gpus) if self.gpus < 1 else self.gpus
        wanted = {"CPU": self.cpus, "GPU": gpus}
        return tune.PlacementGroupFactory([{k: v for k, v in wanted.items() if v}])


DEFAULT_GPUS_PER_TRIAL = 0.25
"""Share of a GPU per trial if the memory of the GPUs is unknown."""


MOST_TO_A_GPU = 8


HEADROOM = 1.3
"""Factor on the bytes of a training step, for what operations need temporarily."""


CONTEXT = 2**30
"""Bytes of a GPU that a process takes before it trains."""


PROBE_SECONDS = 60.0


@dataclass(frozen=True)
class Slots:
    """The division of the cluster among trials.

    Attributes:
        config: Resources that the configuration asks for.
        trial: Resources that one trial holds, or one worker of a final training.
        supernet: Resources that the trial of a one-shot search holds.
    """

    config: ResourcesConfig
    trial: TrialResources
    supernet: TrialResources

    @property
    def total(self) -> int:
        """Number of trials that the cluster can run at once as it is now."""
        return sum(_fits(node, self.trial) for node in _nodes())

    @property
    def room_for_workers(self) -> int:
        """Number of workers of a common training that the cluster can run at once.

        Each has the CPUs of a trial and, if trials use GPUs, a GPU of its own.
        """
        worker = replace(self.trial, gpus=1.0 if self.trial.gpus else 0.0)
        return sum(_fits(node, worker) for node in _nodes())

    def share(self, searches: int) -> int:
        """Return how many trials each of some searches runs at once, from beginning to end.

        It is the same for all, and does not change while they run: a search that
        gets its trials' results one by one learns more from each than one that runs many at once.
        """
        return self.config.trials_at_once or max(1, self.total // max(1, searches))

    def has_room_for(self, searches: int, trials_at_once: int) -> bool:
        """Return whether a number of searches may run side by side; a single one always may.

        If the number of their trials is given, all may: those without room wait for it, which makes
        an autoscaling cluster grow.
        """
        return (
            self.config.trials_at_once is not None
            or searches <= 1
            or searches * trials_at_once <= self.total
        )

    def check_workers(self, workers: int) -> None:
        """Check that the cluster can run a number of workers of one final training.

        Raises:
            UserError: It can never run them.
        """
        # On a cluster that starts nodes on request, there may be room later.
        if self.config.trials_at_once is None and workers > max(1, self.room_for_workers):
            gpu = " and a GPU" if self.trial.gpus else ""
            raise UserError(
                f"final.workers is {workers}, but the cluster has room for "
                f"{self.room_for_workers}, at {self.trial.cpus:g} CPUs{gpu} each"
            )


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


def slots_of(
    config: ResourcesConfig, footprints: Callable[[], tuple[int, int]] | None = None
) -> Slots:
    """Return how the trials of a run share the connected cluster."""
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
    if config.trials_at_once is not None:  # nodes that hold them may join later
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
    """Return the share of a GPU that holds a training, as one over a whole number."""
    return 1 / max(1, min(MOST_TO_A_GPU, int(memory / (HEADROOM * footprint + CONTEXT))))


def _gpu_memory() -> int:
    """Return the bytes of a GPU of the cluster; 0 if there is none that can be queried."""
    asked = ray.remote(num_cpus=0, num_gpus=0.01)(_own_gpu_memory).remote()
    ended, _ = ray.wait([asked], timeout=PROBE_SECONDS)
    if not ended:
        ray.cancel(asked, force=True)
        return 0
    memory: int = ray.get(asked)
    return memory


def _own_gpu_memory() -> int:
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
