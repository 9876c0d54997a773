"""`SupernetTrainable`: one one-shot search inside one supernet; fidelity is the epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, islice
from typing import Any

import torch
from ray import tune

from search_spaces.genotype import Genotype, Ranking
from search_spaces.mixture import Mixture
from trainables.data import Batches
from trainables.hardware.device import take_device
from trainables.hardware.peak_memory import PeakMemory
from trainables.one_shot.algorithm import OneShotAlgorithm
from trainables.one_shot.collapse import (
    INSPECTIONS,
    WINDOW,
    Sharpness,
    dominant_eigenvalue,
    mean_entropy,
    poor_operations,
    poor_share,
)
from trainables.one_shot.shared_weights import SharedWeights
from trainables.persistence.resumable import Result, ResumableTrainable
from trainables.proxy.warm_host import insert_into_host
from trainables.search_job import SearchJob
from trainables.training.cuda_graphs import as_graphs
from trainables.training.loop import (
    Batch,
    Diverged,
    Evaluation,
    Trainer,
    evaluate,
    evaluation_mode,
    place,
    random_state,
    set_random_state,
    train_epoch,
)

STOPPED_EARLY = "stopped early"
"""Beginning of the reason of a search that ends before its budget."""

RANKING_SIZE = 20

STATISTICS_BATCHES = 4
"""Number of training batches from which running statistics are estimated again."""


class SupernetTrainable(ResumableTrainable):
    """Training of a supernet and its architecture parameters in a budget, one epoch per iteration.

    The training set is cut into two halves, one for the weights and one for the architecture
    parameters (DARTS, Liu et al. 2019, section 3). An epoch is one pass over the weights' half;
    the last one may be shorter, to fit the budget. Each iteration reports the same entries as
    `ProxyTrainable`, with the supernet's own validation metrics and its present best genotype. It
    also reports `ranking`, `peak_memory_mib`, the entries of the algorithm's `report` (`alpha`),
    and, ten times per search, the signs of collapse (`trainables.one_shot.collapse`): `entropy`,
    `poor_share`, `dominant_eigenvalue` and `discretisation_gap`, the validation loss of the best
    genotype with the shared weights minus that of the supernet. Their seconds are not counted, and
    of their samples only those of the eigenvalue where it can end the search. The last iteration
    also reports `scores`, the search's scores of the job's `genotypes_to_score`.
    """

    def prepare(
        self,
        job: SearchJob | None = None,
        algorithm: OneShotAlgorithm | None = None,
        budget: int = 0,
    ) -> None:
        """Store the parts of the search.

        Args:
            job: Search; the algorithm's protocol replaces its own.
            algorithm: Algorithm, not yet started.
            budget: Samples that the search may use.
        """
        if job is None or algorithm is None:
            raise ValueError("hand job and algorithm over through tune.with_parameters")
        self.device = take_device(job.threads)
        self.job, self.algorithm, self.budget = job, algorithm, budget

    def lost(self) -> dict[str, float]:
        """Return the metrics of a trial that diverged."""
        return self.job.task.lost("val")

    def build(self, config: dict[str, Any]) -> None:
        """Build the supernet and start the algorithm; the config is not read."""
        job, algorithm, protocol = self.job, self.algorithm, self.algorithm.protocol
        data = job.data.to(self.device)
        weights, architecture = data.halves(job.seed)
        if not algorithm.halves_data:
            weights = architecture = torch.cat([weights, architecture])
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

        self.peak_memory = PeakMemory(self.device)
        self.batch_size = batch_size
        self.train_batches = batches(weights, job.seed)
        self.arch_batches = batches(architecture, job.seed + 1)
        self.val_batches = Batches(
            data.validation, 512, data.normalisation, channels_last=channels_last
        )
        self.total_steps = algorithm.steps(batch_size, self.budget)
        if self.total_steps < 1:
            raise ValueError(f"a budget of {self.budget} samples is less than one step")

        supernet = algorithm.build_supernet(job.network, job.space, job.seed)
        if job.host_job is not None:
            insert_into_host(supernet.host, job)
        place(supernet, protocol, self.device)
        self.supernet = supernet
        forward = as_graphs(supernet, protocol, self.device)
        self.trainer = Trainer(
            lambda images: forward(images, algorithm.mixture()),
            algorithm.weight_parameters(supernet),
            protocol,
            self.total_steps,
            self.device,
            job.task,
        )
        self.generator = torch.Generator().manual_seed(job.seed)
        algorithm.start(supernet, self.trainer, self.generator)
        torch.manual_seed(job.seed)
        parameters = sum(alpha.numel() for alpha in algorithm.architecture)
        self.sharpest = torch.randn(parameters, generator=self.generator).to(self.device)
        self.sharpness = Sharpness()
        self.inspected_rankings: list[Ranking] = []
        self.epoch = self.steps = 0
        self.train_seconds = 0.0

    def train_epoch(self) -> Result:
        """Search for one epoch, or for the rest of the budget, and evaluate the supernet."""
        started = time.perf_counter()
        result: dict[str, Any] = {"diverged": False, "reason": ""}
        inspections_before = int(INSPECTIONS * self.steps / self.total_steps)
        try:
            result["train_loss"] = self._train()
            result |= self._validate(self.algorithm.central_mixture()).reported("val")
        except Diverged as divergence:
            result |= {**self.lost(), "diverged": True, "reason": str(divergence)}
        self.epoch += 1
        used_up = self.steps >= self.total_steps
        samples = self.algorithm.step_cost.samples(self.batch_size, self.steps, self.total_steps)
        ranking = self.algorithm.ranking(RANKING_SIZE)
        if used_up and not result["diverged"]:
            inspections = INSPECTIONS * self.algorithm.cost_of_inspection(self.batch_size)
            shared = self._shared_weights(self.budget - samples - inspections)
            ranking = self.algorithm.conclude(RANKING_SIZE, shared)
            samples += shared.samples
        self.train_seconds += time.perf_counter() - started
        result |= self.algorithm.report()
        done = used_up or result["diverged"]
        if (
            not result["diverged"]
            and int(INSPECTIONS * self.steps / self.total_steps) > inspections_before
        ):
            result |= self._signs_of_collapse(result, ranking)
            self.inspected_rankings.append(ranking)
            eigenvalue = result.get("dominant_eigenvalue", 0.0)
            if self.algorithm.stops_when_sharp and self.sharpness.collapsed(eigenvalue):
                ranking = self.inspected_rankings[-1 - WINDOW]
                reason = f"{STOPPED_EARLY}: the validation loss has become sharp in alpha"
                result |= {"reason": reason}
                done = True
        if done and not result["diverged"] and self.job.genotypes_to_score:
            result["scores"] = self.algorithm.score(
                self.job.genotypes_to_score, self._shared_weights()
            )
        cost = self.algorithm.cost_of_inspection(self.batch_size)
        inspected = cost * len(self.inspected_rankings)
        return result | {
            "genotype": str(ranking[0][0]),
            "ranking": _as_text(ranking),
            "epoch": self.epoch,
            "samples": samples + inspected,
            "train_seconds": self.train_seconds,
            "peak_memory_mib": self.peak_memory.mib(),
            "finished": used_up,
            tune.result.DONE: done,
        }

    def _train(self) -> float:
        arch_batches = self.arch_batches.forever()
        steps = min(len(self.train_batches), self.total_steps - self.steps)
        warm = self.algorithm.step_cost.warm_steps(self.total_steps)
        numbers = count(self.steps)
        self.steps += steps

        def search(batch: Batch) -> None:
            number = next(numbers)
            self.algorithm.begin_step(number / self.total_steps)
            if number >= warm:
                self.algorithm.architecture_step(batch, next(arch_batches))

        return train_epoch(self.trainer, islice(self._epoch(), steps), before_step=search)

    def _epoch(self) -> Iterator[Batch]:
        yield from self.train_batches

    def _validate(self, mixture: Mixture) -> Evaluation:
        if self.algorithm.is_stochastic:
            return self._shared_weights().evaluate(mixture)
        with torch.no_grad():
            return evaluate(
                self.supernet,
                self.val_batches,
                self.algorithm.protocol,
                self.device,
                self.job.task,
                forward=lambda images: self.supernet(images, mixture),
            )

    def _shared_weights(self, budget: int = 0) -> SharedWeights:
        return SharedWeights(
            self.supernet,
            self.algorithm.protocol,
            self.train_batches.first(STATISTICS_BATCHES),
            self.val_batches,
            self.device,
            budget,
            self.job.task,
        )

    def _signs_of_collapse(self, result: dict[str, Any], ranking: Ranking) -> dict[str, float]:
        signs: dict[str, float] = {}
        if "alpha" in result:
            signs["entropy"] = mean_entropy(result["alpha"])
            signs["poor_share"] = poor_share(result["alpha"], poor_operations(self.supernet))
        if len(self.sharpest):
            images, targets = self.arch_batches.first()[0]
            with evaluation_mode(self.supernet):
                signs["dominant_eigenvalue"], self.sharpest = dominant_eigenvalue(
                    lambda: self.job.task.loss(
                        self.supernet(images, self.algorithm.central_mixture()), targets
                    ),
                    self.algorithm.architecture,
                    self.sharpest,
                )
        with suppress(Diverged):  # the genotype by itself may diverge where the mixture does not
            single = self._shared_weights().evaluate_genotype(ranking[0][0])
            signs["discretisation_gap"] = single.loss - result["val_loss"]
        return signs

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
            "sharpest": self.sharpest,
            "sharpness": list(self.sharpness.values),
            "looks": [_as_text(ranking) for ranking in self.inspected_rankings],
            "epoch": self.epoch,
            "steps": self.steps,
            "train_seconds": self.train_seconds,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Resume from a state; on a CPU, bit for bit."""
        self.supernet.load_state_dict(state["supernet"])
        self.trainer.load_state_dict(state["trainer"])
        self.algorithm.load_state_dict(state["algorithm"])
        self.train_batches.load_state_dict(state["train_batches"])
        self.arch_batches.load_state_dict(state["arch_batches"])
        self.generator.set_state(state["generator"])
        set_random_state(state["random"], self.device)
        self.sharpest = state["sharpest"].to(self.device)
        self.sharpness = Sharpness(state["sharpness"])
        self.inspected_rankings = [
            [(Genotype.parse(text), score) for text, score in ranking] for ranking in state["looks"]
        ]
        self.epoch = state["epoch"]
        self.steps = state["steps"]
        self.train_seconds = state["train_seconds"]


def _as_text(ranking: Ranking) -> list[list[Any]]:
    return [[str(genotype), score] for genotype, score in ranking]
