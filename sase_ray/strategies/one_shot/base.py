"""Base class of strategies that search within one supernet."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field, model_validator

from sase_ray.results.families import Family
from sase_ray.results.history import History
from sase_ray.strategies.contract import Plan, SearchTask, Strategy, check_budget
from search_spaces.errors import UserError
from search_spaces.genotype import Ranking
from search_spaces.mixture import Mixture
from trainables.hardware.memory_estimate import training_footprint
from trainables.metrics import Metric, declare
from trainables.one_shot.algorithm import OneShotAlgorithm
from trainables.one_shot.collapse import INSPECTIONS
from trainables.one_shot.trainable import SupernetTrainable
from trainables.training.protocol import TrainingProtocol

logger = logging.getLogger(__name__)

LOG_PROBABILITY = Metric("log_probability", "max", label="log-probability")
declare(LOG_PROBABILITY)


class OneShot(Strategy):
    """A strategy that searches inside one supernet: one trial is the whole search.

    A subclass defines an `algorithm`. The weights of the supernet are trained as in DARTS, unless
    the subclass states otherwise.
    """

    batch_size: int = Field(default=64, ge=2)
    lr: float = Field(default=0.025, gt=0, description="of the weights, SGD, cosine to lr_min")
    lr_min: float = Field(default=0.001, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=3e-4, ge=0)
    clip: float = Field(default=5.0, gt=0, description="maximal gradient norm of the weights")

    family: ClassVar[Family] = "one-shot"
    trains_supernet: ClassVar[bool] = True

    @model_validator(mode="after")
    def _rate_falls(self) -> OneShot:
        if self.lr_min > self.lr:
            raise ValueError(f"lr_min {self.lr_min:g} is above lr {self.lr:g}")
        return self

    def weight_protocol(self, task: SearchTask) -> TrainingProtocol:
        """Return the protocol of the supernet's weights; `epochs` follows from the budget."""
        shared = task.job.protocol.model_dump(
            include={"augment", "amp", "channels_last", "deterministic", "cuda_graphs"}
        )
        own = self.model_dump(
            include={"batch_size", "lr", "lr_min", "momentum", "weight_decay", "clip"}
        )
        return TrainingProtocol(**shared, **own)

    def ranks_by(self, task: SearchTask) -> str:
        """Return the log-probability under the architecture parameters."""
        return LOG_PROBABILITY.name

    @abstractmethod
    def algorithm(self, task: SearchTask) -> OneShotAlgorithm:
        """Return the algorithm, not yet started."""

    def check(self, task: SearchTask) -> None:
        """Reject a budget that is not enough for one step, and a host that the blocks do not fit.

        Raises:
            UserError: The budget is too small, or the blocks do not fit into the host.
        """
        algorithm, job = self.algorithm(task), task.job
        try:
            with torch.device("meta"):
                algorithm.build_supernet(job.network, job.space, job.seed)
        except UserError:
            raise
        except Exception:
            # If a user's operation fails, only its own search fails, and the others continue.
            logger.debug("the supernet cannot be built", exc_info=True)
        images = len(job.data.train) // (2 if algorithm.halves_data else 1)
        batch_size = min(algorithm.protocol.batch_size, images)
        one_step = algorithm.step_cost.samples(batch_size, 1, 1)
        inspections = INSPECTIONS * algorithm.cost_of_inspection(batch_size)
        needed = math.ceil((one_step + inspections) / (1 - algorithm.reserve))
        check_budget(task, needed, "one step of the search")

    def footprint(self, task: SearchTask) -> int:
        """Return the bytes of GPU memory that a step takes with all operations weighed alike."""
        algorithm, job = self.algorithm(task), task.job
        supernet = algorithm.build_supernet(job.network, job.space, 0)
        alike = Mixture([torch.ones(len(v.choices)) for v in job.space.variables])
        size, kind = algorithm.protocol.batch_size, algorithm.protocol.optimizer
        forward = partial(supernet, mixture=alike)
        return training_footprint(supernet, job.data.shape, size, kind, forward)

    def plan(self, task: SearchTask) -> Plan:
        """Return the plan of one `SupernetTrainable`, with the whole budget."""
        return Plan(
            trainable=SupernetTrainable,
            parameters={
                "job": task.job,
                "algorithm": self.algorithm(task),
                "budget": task.budget,
            },
            samples_per_epoch=0,  # the trainable itself ends within its budget
            first_epochs=0,
            max_trials=1,
        )

    def conclude(self, history: History, task: SearchTask) -> Ranking:
        """Return the last ranking of the search."""
        return history.last_ranking()
