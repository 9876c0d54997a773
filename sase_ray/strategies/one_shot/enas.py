"""ENAS: a recurrent controller draws paths, and learns by policy gradient from shared weights.

Pham et al., "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sase_ray.strategies.contract import SearchTask
from sase_ray.strategies.one_shot.sampled import SharedWeightsSearch
from search_spaces.genotype import Genotype, Ranking
from search_spaces.mixture import Mixture
from search_spaces.network import Supernet
from trainables.one_shot.algorithm import OneShotAlgorithm, StepCost, distances, rate_of_travel
from trainables.one_shot.shared_weights import SharedWeights
from trainables.training.cost import FORWARD_SHARE
from trainables.training.loop import Batch, Trainer
from trainables.training.protocol import TrainingProtocol


class ENAS(SharedWeightsSearch):
    """Policy gradient over shared weights. The controller's defaults are the paper's (section 3.2).

    The paper steps the controller in phases, here it steps before each weight step. Its learning
    rate follows from the length of the search: in the authors' public search scripts the controller
    takes 150 x 30 steps of 3.5e-3 (cells) or 310 x 50 of 1e-3 (whole networks), a travel of 15.7
    and 15.5; the paper's text gives a rate of 3.5e-4 (section 3.2).
    """

    name: ClassVar[str] = "enas"
    source: ClassVar[str] = "Pham et al. 2018"
    summary: ClassVar[str] = "an LSTM controller learns by policy gradient which paths to draw"

    hidden: int = Field(default=100, ge=1, description="units of the controller")
    controller_lr: float | None = Field(
        default=None,
        gt=0,
        description="of the controller, Adam; default: travel / steps (paper: 3.5e-4)",
    )
    travel: float = Field(
        default=15.7, gt=0, description="how far the controller can move: its rate times its steps"
    )
    baseline_decay: float = Field(default=0.99, ge=0, lt=1, description="of the moving baseline")
    entropy_weight: float = Field(default=0.1, ge=0, description="of the entropy in the reward")
    temperature: float = Field(default=5.0, gt=0, description="divides the logits")
    tanh_constant: float = Field(default=2.5, gt=0, description="bound of the logits")

    def algorithm(self, task: SearchTask) -> OneShotAlgorithm:
        """Return the controller's algorithm."""
        return ENASAlgorithm(self, self.weight_protocol(task))


class Controller(nn.Module):
    """An LSTM that chooses the operations one by one, each given those before.

    Args:
        sizes: Number of choices of each decision.
        settings: Options of the search.
    """

    def __init__(self, sizes: Sequence[int], settings: ENAS) -> None:
        super().__init__()
        self.settings = settings
        hidden = settings.hidden
        self.cell = nn.LSTMCell(hidden, hidden)
        self.begin = nn.Parameter(torch.empty(1, hidden))
        # The last choice is the next input: one table per decision.
        self.embeddings = nn.ModuleList(nn.Embedding(size, hidden) for size in sizes[:-1])
        self.heads = nn.ModuleList(nn.Linear(hidden, size) for size in sizes)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all parameters uniformly from -0.1 to 0.1."""
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-0.1, 0.1, generator=generator)

    def forward(self, chosen: Tensor) -> list[Tensor]:
        """Return the log-probabilities of the choices of each decision, given those before it.

        Args:
            chosen: Choices for the first d decisions, int64 (N, d).

        Returns:
            A tensor (N, choices) for each of the first d + 1 decisions, or for all if d is their
            number.
        """
        rows: list[Tensor] = []
        state = None
        inputs = self.begin.expand(len(chosen), -1)
        for decision, head in enumerate(self.heads):
            state = self.cell(inputs, state)
            logits = head(state[0]) / self.settings.temperature
            bounded = self.settings.tanh_constant * torch.tanh(logits)
            rows.append(F.log_softmax(bounded, dim=1))
            if decision == chosen.shape[1] or decision == len(self.embeddings):
                break
            inputs = self.embeddings[decision](chosen[:, decision])
        return rows

    @torch.no_grad()
    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw the choices of one genotype: int64 (1, decisions)."""
        chosen = torch.empty(1, 0, dtype=torch.long)
        for decision in range(len(self.heads)):
            chances = self(chosen)[decision].exp()
            chosen = torch.cat([chosen, chances.multinomial(1, generator=generator)], dim=1)
        return chosen

    @torch.no_grad()
    def likeliest(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the likeliest choices (N, decisions) and their log-probabilities (N,).

        They are found by a beam search of width `count`.
        """
        chosen, totals = torch.empty(1, 0, dtype=torch.long), torch.zeros(1)
        for decision in range(len(self.heads)):
            row = self(chosen)[decision]
            size = row.shape[1]
            sums = (totals[:, None] + row).flatten()
            totals, best = sums.topk(min(count, len(sums)))
            chosen = torch.cat([chosen[best // size], (best % size)[:, None]], dim=1)
        return chosen, totals


class ENASAlgorithm(OneShotAlgorithm):
    """Alternation of controller steps and steps of the shared weights, each on its own path.

    The controller is small and stays on the CPU.
    """

    # The weights' step, and the forward pass that rewards the controller.
    step_cost = StepCost(passes=1 + FORWARD_SHARE)
    is_stochastic = True

    def __init__(self, settings: ENAS, protocol: TrainingProtocol) -> None:
        self.settings = settings
        self.protocol = protocol
        self.reserve = settings.reserve

    def start(self, supernet: Supernet, trainer: Trainer, generator: torch.Generator) -> None:
        """Create the controller and its optimiser."""
        self.space, self.supernet = supernet.space, supernet
        self.generator, self.trainer = generator, trainer
        sizes = [len(variable.choices) for variable in self.space.variables]
        with torch.random.fork_rng(devices=[]):
            self.controller = Controller(sizes, self.settings)
        self.controller.initialise(generator)
        self.at_start = [parameter.detach().clone() for parameter in self.controller.parameters()]
        self.optimizer = torch.optim.Adam(
            self.controller.parameters(),
            lr=self.settings.controller_lr
            or rate_of_travel(self.settings.travel, trainer, self.step_cost),
        )
        self.baseline: float | None = None

    def mixture(self) -> Mixture:
        """Draw a path from the controller."""
        return _path(self.controller.sample(self.generator))

    def central_mixture(self) -> Mixture:
        """Return the likeliest path under the controller."""
        return _path(self.controller.likeliest(1)[0])

    def architecture_step(self, train: Batch, validation: Batch) -> None:
        """Draw a path, reward it by the shared weights, and step the controller."""
        chosen = self.controller.sample(self.generator)
        self.reinforce(chosen, self.reward(chosen, validation))

    @torch.no_grad()
    def reward(self, chosen: Tensor, batch: Batch) -> float:
        """Return the task's reward of a path on a batch, with the current shared weights.

        Batch norms use the batch's own statistics, as the running ones are those of all paths.
        """
        images, targets = batch
        return float(self.trainer.task.reward(self.supernet(images, _path(chosen)), targets))

    def reinforce(self, chosen: Tensor, reward: float) -> None:
        """Step the controller by REINFORCE with a moving baseline."""
        log_probability, entropy = self.evaluate_choices(chosen)
        reward += self.settings.entropy_weight * float(entropy.detach())
        decay = self.settings.baseline_decay
        self.baseline = (
            reward if self.baseline is None else decay * self.baseline + (1 - decay) * reward
        )
        self.optimizer.zero_grad()
        (-(reward - self.baseline) * log_probability).backward()
        self.optimizer.step()

    def evaluate_choices(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of choices (1, decisions), and the entropy along the path."""
        rows = self.controller(chosen)
        picked = [row[0, index] for row, index in zip(rows, chosen[0], strict=True)]
        entropy = -sum(((row.exp() * row).sum() for row in rows), torch.zeros(()))
        return torch.stack(picked).sum(), entropy

    def ranking(self, count: int) -> Ranking:
        """Rank genotypes by their log-probability under the controller."""
        chosen, totals = self.controller.likeliest(count)
        return [(self._genotype(c), t) for c, t in zip(chosen, totals.tolist(), strict=True)]

    def conclude(self, count: int, shared: SharedWeights) -> Ranking:
        """Draw candidates from the controller, and rank them with the shared weights."""
        return shared.rank(lambda: self._genotype(self.controller.sample(self.generator)[0]), count)

    def _genotype(self, chosen: Tensor) -> Genotype:
        pairs = zip(self.space.variables, chosen.tolist(), strict=True)
        return Genotype(tuple(variable.choices[index] for variable, index in pairs))

    @torch.no_grad()
    def report(self) -> dict[str, Any]:
        """Record the probabilities along the likeliest path, and how far the controller moved."""
        rows = self.controller(self.controller.likeliest(1)[0])
        names = [variable.name for variable in self.space.variables]
        return {
            "alpha": {name: row[0].exp().tolist() for name, row in zip(names, rows, strict=True)},
            **distances(list(self.controller.parameters()), self.at_start),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the controller, its optimiser and the baseline."""
        return {
            "controller": self.controller.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "baseline": self.baseline,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the controller, its optimiser and the baseline."""
        self.controller.load_state_dict(state["controller"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.baseline = state["baseline"]


def _path(chosen: Tensor) -> Mixture:
    return Mixture([{index: 1.0} for index in chosen[0].tolist()])
