"""DARTS: operations mixed by the softmax of alpha, weights and alpha stepped in turn.

Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019. First order: the
gradient of the validation loss with respect to alpha at the current weights (eq. 6 with xi = 0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sase_ray.strategies.contract import SearchTask
from sase_ray.strategies.one_shot.base import OneShot
from search_spaces.genotype import Genotype, Ranking
from search_spaces.mixture import Mixture
from search_spaces.network import NetworkSpec, Supernet
from search_spaces.space import SearchSpace
from search_spaces.super_block import SuperSASE
from trainables.one_shot.algorithm import (
    OneShotAlgorithm,
    StepCost,
    best_by_sum,
    distances,
    rate_of_travel,
    sums_of,
)
from trainables.one_shot.shared_weights import SharedWeights
from trainables.training.loop import Batch, Trainer
from trainables.training.protocol import TrainingProtocol

Beta = Annotated[float, Field(ge=0, lt=1)]


class DARTS(OneShot):
    """First-order DARTS. The defaults are the paper's (section 3.1 and appendix A.1).

    The paper's learning rate of alpha, 3e-4, belongs to its 50 epochs of 391 steps. Here the rate
    follows from the length of the search, so that alpha can move as far as in the paper (`travel`).
    """

    name: ClassVar[str] = "darts"
    source: ClassVar[str] = "Liu et al. 2019, first order"
    summary: ClassVar[str] = "supernet with softmax weights; alpha by the validation gradient"

    alpha_lr: float | None = Field(
        default=None, gt=0, description="of alpha, Adam; default: travel / steps (paper: 3e-4)"
    )
    travel: float = Field(
        default=5.9, gt=0, description="how far alpha can move: its rate times its steps"
    )
    alpha_betas: tuple[Beta, Beta] = (0.5, 0.999)
    alpha_weight_decay: float = Field(default=1e-3, ge=0)
    stop_when_sharp: bool = Field(
        default=False,
        description="end early when the validation loss becomes sharp in alpha (Zela et al. 2020)",
    )

    def algorithm(self, task: SearchTask) -> OneShotAlgorithm:
        """Return the first-order algorithm."""
        return DARTSAlgorithm(self, self.weight_protocol(task))


class DARTSAlgorithm(OneShotAlgorithm):
    """Alternation of weight and alpha steps (Liu et al. 2019, algorithm 1)."""

    step_cost = StepCost(passes=2)  # the weights' step, and the validation gradient of alpha

    def __init__(self, settings: DARTS, protocol: TrainingProtocol) -> None:
        self.settings = settings
        self.protocol = protocol
        self.stops_when_sharp = settings.stop_when_sharp

    def build_supernet(self, spec: NetworkSpec, space: SearchSpace, seed: int) -> Supernet:
        """Build the supernet of this algorithm's blocks."""
        return Supernet(spec, space, block=self.block(), seed=seed)

    def block(self) -> Callable[..., nn.Module]:
        """Return the constructor of a mixed block: see `Supernet`."""
        return SuperSASE

    def start(self, supernet: Supernet, trainer: Trainer, generator: torch.Generator) -> None:
        """Draw alpha near zero, so that all operations begin almost equally probable."""
        self.space = supernet.space
        self.trainer = trainer
        self.supernet = supernet
        self.alpha = [
            nn.Parameter(
                1e-3 * torch.randn(len(variable.choices), generator=generator).to(trainer.device)
            )
            for variable in self.space.variables
        ]
        self.alpha_at_start = [alpha.detach().clone() for alpha in self.alpha]
        self.learned = [*self.alpha, *self.further_parameters()]
        self.optimizer = torch.optim.Adam(
            self.learned,
            lr=self.settings.alpha_lr
            or rate_of_travel(self.settings.travel, trainer, self.step_cost),
            betas=self.settings.alpha_betas,
            weight_decay=self.settings.alpha_weight_decay,
        )

    def further_parameters(self) -> list[nn.Parameter]:
        """Return parameters that are learned with alpha, by the same optimiser: here none."""
        return []

    def mixture(self) -> Mixture:
        """Weigh the operations by the softmax of alpha (eq. 2)."""
        return Mixture([F.softmax(alpha, dim=0) for alpha in self.alpha])

    @property
    def architecture(self) -> Sequence[Tensor]:
        """Architecture parameters: alpha of each edge."""
        return self.alpha

    def architecture_step(self, train: Batch, validation: Batch) -> None:
        """Step alpha along its gradient."""
        gradients = self.gradient(train, validation)
        for parameter, gradient in zip(self.learned, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()

    def gradient(self, train: Batch, validation: Batch) -> tuple[Tensor, ...]:
        """Return the gradient of the validation loss with respect to `learned`."""
        return torch.autograd.grad(self.trainer.loss(validation), self.learned)

    def ranking(self, count: int) -> Ranking:
        """Rank by log-probability under alpha; the first genotype is the argmax of each edge."""
        return best_by_sum(self.space, self.log_probabilities(), count)

    def score(self, genotypes: Sequence[Genotype], shared: SharedWeights) -> list[float]:
        """Score genotypes by their log-probability under alpha."""
        return sums_of(self.space, self.log_probabilities(), genotypes)

    def log_probabilities(self) -> list[list[float]]:
        """Return the log-probabilities of every edge's operations under alpha."""
        return [F.log_softmax(alpha.detach(), dim=0).tolist() for alpha in self.alpha]

    def report(self) -> dict[str, Any]:
        """Record the probabilities of the operations, and how far alpha has moved."""
        return {"alpha": self.probabilities(), **distances(self.alpha, self.alpha_at_start)}

    def probabilities(self) -> dict[str, list[float]]:
        """Return the probabilities of every edge's operations under alpha."""
        names = (variable.name for variable in self.space.variables)
        return {
            name: F.softmax(alpha.detach(), dim=0).tolist()
            for name, alpha in zip(names, self.alpha, strict=True)
        }

    def state_dict(self) -> dict[str, Any]:
        """Return alpha and its optimiser."""
        return {
            "alpha": [parameter.detach().clone() for parameter in self.learned],
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore alpha and its optimiser."""
        with torch.no_grad():
            for parameter, saved in zip(self.learned, state["alpha"], strict=True):
                parameter.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
