"""Training of one module from scratch by the final protocol; the network is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from sase_ray.config import Config, load_config
from sase_ray.console import make_console, say
from sase_ray.execution.experiment import FIRST_FINAL_SEED, Problem
from search_spaces.baselines import baselines
from search_spaces.errors import UserError
from search_spaces.user_paths import user_path
from trainables.final.training import WEIGHTS, train_final
from trainables.persistence.checkpoint import Checkpoints
from trainables.persistence.store import Store, write_whole
from trainables.planted.plant import make_plant
from trainables.tasks.contract import Task
from trainables.training.frozen_host import train_frozen_host


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        path: Path of its weights, which `torch.load(path, weights_only=True)` reads.
        task: Task that it was trained for, which declares the metrics.
        results: Metrics on the test images by name, such as `test_accuracy`.
        seconds: Seconds of training and evaluation.
    """

    path: Path
    task: Task
    results: Mapping[str, float]
    seconds: float


def train(
    module: str,
    config: Config | Mapping[str, Any] | str | Path | None = None,
    *,
    output: str | Path | None = None,
    seed: int = FIRST_FINAL_SEED,
    console: Console | None = None,
    **overrides: Any,
) -> Trained:
    """Train a module from scratch on train and validation images, then use the test images once.

    With `planted`, it imitates the plant of the first search seed.

    After an interruption, the same call resumes it.

    Args:
        module: Genotype, or the name of a hand-designed module (`none`, `se`, `eca`, `cbam`).
        config: As for `compare`; the config.yaml of a run trains as that run did.
        output: File of the weights; by default named after the module.
        seed: Seed of initial weights and batches.
        console: Console for progress; standard output if None.
        overrides: As for `compare`.

    Raises:
        UserError: The module does not fit, the file exists, or the training diverged.
    """
    console = console or make_console()
    problem = Problem.of(load_config(config, overrides))
    baseline = module in {row.name for row in baselines()}
    if not baseline:
        module = str(problem.space.parse(module))
    path = user_path(output or f"{module}.pt")
    if path.exists():
        raise UserError(f"{path} exists: choose another --output, or remove it")
    job = problem.final_job(module, baseline=baseline, seed=seed)
    job = replace(job, shown=(), keeps_weights=True)
    identity = repr((job, problem.config.data, problem.config.host))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    kept = Store(path.absolute().parent / f".{path.name}.{digest}.checkpoints")
    checkpoints = Checkpoints(kept, lambda note: say(console, note))
    for note in problem.notes:
        say(console, f"data: {note}")
    say(console, f"training {module} for {job.protocol.epochs} epochs, weights to {path}")
    data = problem.final_data
    if problem.host_job is not None:
        host = train_frozen_host(problem.host_job, kept.at("host"))
        if (making := problem.plant_job(0)) is not None:
            plant = make_plant(making, host, kept.at("plant"))
            host, data = plant.in_host(host), plant.label_final(data)
        job = replace(job, host=host)
    result = train_final(job, data, checkpoints)
    content = kept.read(WEIGHTS)
    if content is None:
        raise UserError(f"the training diverged: {result['reason']}")
    write_whole(path, lambda partial: partial.write_bytes(content))
    kept.remove()
    results = {name: result[name] for name in job.task.reported("test")}
    return Trained(path, job.task, results, result["train_seconds"])
