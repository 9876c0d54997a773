"""Training of one network by several workers, each on its part of every batch.

Data-parallel training as by Li et al., VLDB 2020, https://arxiv.org/abs/2006.15704, started by Ray
Train. The network computes the same as it would with one worker on the whole batch.
"""

from __future__ import annotations

import tempfile
from typing import Any
from uuid import uuid4

import ray
import torch.distributed as dist
from torch import nn

from search_spaces.errors import UserError
from search_spaces.ops.layers.synced_batch_norm import share_norms
from trainables.final.team import Team
from trainables.final.training import FinalJob, train_final
from trainables.persistence.checkpoint import Checkpoints
from trainables.persistence.store import Store

MAX_FAILURES = 2
"""Number of times that a training is started again after a worker failed."""


def train_final_together(
    job: FinalJob,
    data: ray.ObjectRef,
    *,
    workers: int,
    cpus: float,
    gpu: bool,
    kept: Store | None = None,
) -> dict[str, Any]:
    """Train from scratch by several workers of the Ray cluster; return the result of `train_final`.

    Order, augmentation, batch statistics and gradients are those of one worker, up to rounding.
    Where rounding decides (between two equal maxima, for example), the training continues like one
    whose weights differ in their last digit. Random draws of the network itself (dropout,
    stochastic depth) are made by every worker for its part, so that the result of a network with
    such draws is like that of another seed.

    If a worker dies or fails, all start again, up to `MAX_FAILURES` times. The function waits as
    long as the cluster is busy.

    Args:
        job: Training to run.
        data: Reference of a `FinalData`.
        workers: Number of workers.
        cpus: CPUs of each worker.
        gpu: Whether each worker has a GPU of its own.
        kept: Store of the first worker's checkpoints, from which all start again; all workers must
            be able to reach it.

    Returns:
        The same as `train_final`; `train_seconds` is the sum over all workers.

    Raises:
        RuntimeError: The training failed too often. The message is the reason, in one line.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = {"CPU": cpus} | ({"GPU": 1.0} if gpu else {})
    # Ray Train marks its storage, only on this node as long as no checkpoint is reported to it.
    with tempfile.TemporaryDirectory(prefix="sase-train-") as storage:
        trainer = TorchTrainer(
            _train_part,  # type: ignore[arg-type]
            train_loop_config={"job": job, "data": data, "kept": kept},
            torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=gpu, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=f"final-{uuid4().hex}",
                storage_path=storage,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
            ),
        )
        try:
            ended: Any = trainer.fit()
        except TrainingFailedError as error:
            raise RuntimeError(_reason(error)) from None
    result: dict[str, Any] = ended.return_value
    return result | {"train_seconds": result["train_seconds"] * workers}


def check_workers(workers: int, batch_size: int, network: nn.Module) -> None:
    """Check that several workers can train a network together.

    Raises:
        UserError: A worker would have no image of a batch, or the network has a batch norm that
            cannot be shared.
    """
    if workers > batch_size:
        raise UserError(
            f"final.workers is {workers}, but a batch of the final training has {batch_size} "
            f"images: set final.workers to {batch_size} or less"
        )
    if workers > 1:
        share_norms(network)


def _train_part(config: dict[str, Any]) -> dict[str, Any]:
    checkpoints = None if config["kept"] is None else Checkpoints(config["kept"])
    return train_final(config["job"], ray.get(config["data"]), checkpoints, Team.joined())


def _reason(error: Exception) -> str:
    """Return the last line of a worker's error, if possible of one not caused by another worker."""
    failures = list(getattr(error, "worker_failures", {}).values()) or [error]
    failures.sort(key=_is_suffered)
    lines = str(failures[0]).strip().splitlines()
    return lines[-1].strip() if lines else type(failures[0]).__name__


def _is_suffered(failure: Exception) -> bool:
    """Return whether a worker failed because it lost another."""
    return isinstance(failure, dist.DistError) or "gloo" in str(failure)
