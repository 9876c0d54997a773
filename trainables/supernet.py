"""`SupernetTrainable`: one one-shot search inside one supernet; fidelity is the epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from ray import tune

from search_spaces.super_block import Mixture
from trainables.data import Batches
from trainables.device import take_device
from trainables.job import SearchJob
from trainables.oneshot import OneShotAlgorithm, Ranking
from trainables.resumable import Result, ResumableTrainable
from trainables.training import (
    DIVERGED_SCORE,
    Batch,
    Diverged,
    Evaluation,
    Trainer,
    evaluate,
    place,
    random_state,
    set_random_state,
    train_epoch,
)

RANKING_SIZE = 20


class SupernetTrainable(ResumableTrainable):
    """Trains a supernet and its architecture parameters within a budget, an epoch an iteration.

    The training set is cut into two halves, one for the weights and one for the architecture
    parameters (DARTS, Liu et al. 2019, section 3). An epoch is one pass over the weights' half;
    the last one is as short as the budget asks. Each iteration reports what `ProxyTrainable`
    reports, with the supernet's own validation metrics and the genotype it would give now, and
    besides `ranking` and what the algorithm reports (`alpha`).
    """

    def prepare(
        self,
        job: SearchJob | None = None,
        algorithm: OneShotAlgorithm | None = None,
        budget: int = 0,
    ) -> None:
        """Take what the search is made of.

        Args:
            job: the search; its protocol gives way to the algorithm's.
            algorithm: not yet started.
            budget: samples the search may see.
        """
        if job is None or algorithm is None:
            raise ValueError("hand job and algorithm over through tune.with_parameters")
        self.device = take_device(job.threads)
        self.job, self.algorithm, self.budget = job, algorithm, budget

    def build(self, config: dict[str, Any]) -> None:
        """Build the supernet and start the algorithm; the config is not read."""
        job, algorithm, protocol = self.job, self.algorithm, self.algorithm.protocol
        data = job.data.to(self.device)
        weights, architecture = data.halves(job.seed)
        batch_size = min(protocol.batch_size, len(weights), len(architecture))
        channels_last = protocol.channels_last and self.device.type == "cuda"

        def batches(indices: torch.Tensor, seed: int) -> Batches:
            return Batches(
                data.train,
                batch_size,
                data.normalisation,
                indices=indices,
                seed=seed,
                shuffle=True,
                drop_last=True,
                augmentation=data.augmentation if protocol.augment else None,
                channels_last=channels_last,
            )

        self.train_batches = batches(weights, job.seed)
        self.arch_batches = batches(architecture, job.seed + 1)
        self.val_batches = Batches(
            data.validation, 512, data.normalisation, channels_last=channels_last
        )
        self.step_samples = algorithm.step_cost.samples(batch_size)
        self.total_steps = self.budget // self.step_samples
        if self.total_steps < 1:
            raise ValueError(f"a budget of {self.budget} samples is less than one step")

        supernet = algorithm.build_supernet(job.network, job.space, job.seed)
        self.supernet = place(supernet, protocol, self.device)
        self.trainer = Trainer(
            lambda images: self.supernet(images, algorithm.mixture()),
            algorithm.weight_parameters(supernet),
            protocol,
            self.total_steps,
            self.device,
        )
        self.generator = torch.Generator().manual_seed(job.seed)
        algorithm.start(supernet, self.trainer, self.generator)
        torch.manual_seed(job.seed)
        self.epoch = self.steps = 0
        self.train_seconds = 0.0

    def train_epoch(self) -> Result:
        """Search for one epoch, or for what is left of the budget, and evaluate the supernet."""
        started = time.perf_counter()
        result: dict[str, Any] = {"diverged": False, "reason": ""}
        try:
            self.algorithm.begin_epoch(self.steps / self.total_steps)
            result["train_loss"] = self._train()
            metrics = self._validate(self.algorithm.mixture())
            result |= {"val_loss": metrics.loss, "val_accuracy": metrics.accuracy}
        except Diverged as divergence:
            result |= {**DIVERGED_SCORE, "diverged": True, "reason": str(divergence)}
        self.epoch += 1
        done = result["diverged"] or self.steps >= self.total_steps
        ranking = self._ranking(final=done and not result["diverged"])
        self.train_seconds += time.perf_counter() - started
        return (
            result
            | self.algorithm.report()
            | {
                "genotype": str(ranking[0][0]),
                "ranking": [[str(genotype), score] for genotype, score in ranking],
                "epoch": self.epoch,
                "samples": self.steps * self.step_samples,
                "train_seconds": self.train_seconds,
                "finished": self.steps >= self.total_steps,
                tune.result.DONE: done,
            }
        )

    def _train(self) -> float:
        arch_batches = self.arch_batches.forever()
        steps = min(len(self.train_batches), self.total_steps - self.steps)
        self.steps += steps
        return train_epoch(
            self.trainer,
            islice(self._epoch(), steps),
            before_step=lambda batch: self.algorithm.architecture_step(batch, next(arch_batches)),
        )

    def _epoch(self) -> Iterator[Batch]:
        yield from self.train_batches

    def _ranking(self, *, final: bool) -> Ranking:
        if final:
            return self.algorithm.conclude(RANKING_SIZE, self._validate)
        return self.algorithm.ranking(RANKING_SIZE)

    @torch.no_grad()
    def _validate(self, mixture: Mixture) -> Evaluation:
        return evaluate(
            self.supernet,
            self.val_batches,
            self.algorithm.protocol,
            self.device,
            forward=lambda images: self.supernet(images, mixture),
        )

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the search depends on."""
        return {
            "supernet": self.supernet.state_dict(),
            "trainer": self.trainer.state_dict(),
            "algorithm": self.algorithm.state_dict(),
            "train_batches": self.train_batches.state_dict(),
            "arch_batches": self.arch_batches.state_dict(),
            "generator": self.generator.get_state(),
            "random": random_state(self.device),
            "epoch": self.epoch,
            "steps": self.steps,
            "train_seconds": self.train_seconds,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state, on a CPU bit for bit."""
        self.supernet.load_state_dict(state["supernet"])
        self.trainer.load_state_dict(state["trainer"])
        self.algorithm.load_state_dict(state["algorithm"])
        self.train_batches.load_state_dict(state["train_batches"])
        self.arch_batches.load_state_dict(state["arch_batches"])
        self.generator.set_state(state["generator"])
        set_random_state(state["random"], self.device)
        self.epoch = state["epoch"]
        self.steps = state["steps"]
        self.train_seconds = state["train_seconds"]
