"""Random parameters of a plant by which all of its edges matter."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from search_spaces.block import SASE, Single, attend, evaluate
from search_spaces.genotype import EDGES, Genotype
from search_spaces.network import NetworkSpec
from search_spaces.ops.squeeze import FeatureMap
from search_spaces.space import SearchSpace

STEPS = 300
"""Number of operations that are drawn again in the search for a plant's parameters."""

GAINS = (1.0, 6.0)
"""Range of the factor by which an operation's parameters are larger than the usual initial ones."""

LOUDEST = 4.0
"""Largest variance of a plant's logits, as a multiple of that of the host without modules."""


class Averaged:
    """An edge whose operation's result is replaced by its mean over the images of the batch."""

    def __init__(self, operation: nn.Module) -> None:
        self.operations = (operation,)

    def __call__(self, x: Tensor | FeatureMap) -> Tensor:
        """Evaluate the operation, and remove the differences between images."""
        result = evaluate(self.operations[0], x)
        return result.mean(0, keepdim=True).expand_as(result)


class PlantedBlock(SASE):
    """A block of a plant, one edge of which can be averaged over the images.

    Attributes:
        stage: Stage of the host that it is in.
        averaged: Edge that is averaged; None for none.
    """

    stage: int = 0
    averaged: str | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Attend to `x` (B, C, H, W)."""
        edges = [
            Averaged(operation) if edge == self.averaged else Single(operation)
            for edge, operation in self.edges.items()
        ]
        return attend(x, *edges, join=self.join)


def build_teacher(network: NetworkSpec, genotype: Genotype) -> nn.Module:
    """Return the host with the blocks of a plant.

    Its batch norms have no affine parameters, as in a supernet, which could not imitate them.
    """

    def block(channels: int, size: tuple[int, int], stage: int) -> nn.Module:
        made = PlantedBlock(channels, genotype.stage(stage), size=size, affine=False)
        made.stage = stage
        return made

    return network.build(block)


class Draw:
    """A search for parameters of a plant by which its least important edge matters most.

    Each operation has a gain, drawn log-uniformly in `GAINS`. Weights that a student begins with at
    random are normal with a deviation of gain / sqrt(fan-in); those that it begins with at a
    constant are that times the gain times a log-normal number, or normal around zero. One operation
    of one block after the other is drawn again, and its new parameters are taken if the least
    important edge has become more important by them.

    An edge is as important as the logits change if the edge gives its mean over the images in place
    of what it gives for each: mean squared change over the variance of the logits. So it matters
    by what it knows of the image, which no parameters elsewhere can replace.

    Args:
        teacher: Result of `build_teacher`, in the host.
        space: Search space; edges without an alternative need not matter.
        images: Normalised images (B, C, H, W).
        variance: Variance of the logits of the host without modules, summed over the logits.
        generator: Source of the draws, on the CPU.
    """

    def __init__(
        self,
        teacher: nn.Module,
        space: SearchSpace,
        images: Tensor,
        variance: float,
        generator: torch.Generator,
    ) -> None:
        self.teacher = teacher.eval()
        self.images = images
        self.generator = generator
        self.blocks = [module for module in teacher.modules() if isinstance(module, PlantedBlock)]
        self.norms = [module for module in teacher.modules() if isinstance(module, _BatchNorm)]
        self.constants = {
            parameter: parameter.flatten()[0].item()
            for block in self.blocks
            for parameter in block.parameters()
            if (parameter == parameter.flatten()[0]).all()
        }
        self.loudest = LOUDEST * variance
        self.edges = [
            (EDGES[i % len(EDGES)], i // len(EDGES) if space.stages > 1 else None)
            for i, variable in enumerate(space.variables)
            if len(variable.choices) > 1
        ]

    @torch.no_grad()
    def run(self, steps: int = STEPS) -> float:
        """Draw all parameters, then improve them; return the importance of the least edge."""
        units = [unit for block in self.blocks for unit in (*block.edges.values(), block.join)]
        units = [unit for unit in units if any(True for _ in unit.parameters())]
        for unit in units:
            self._redraw(unit)
        best = self._score(-math.inf)
        for _ in range(steps):
            unit = units[int(torch.randint(len(units), (), generator=self.generator))]
            before = copy.deepcopy(unit.state_dict())
            self._redraw(unit)
            score = self._score(best)
            if score > best:
                best = score
            else:
                unit.load_state_dict(before)
        self._score(-math.inf)  # the statistics belong to the parameters that were taken
        return best

    def importance(self, edge: str, stage: int | None, plain: Tensor) -> float:
        """Return the importance of an edge, of one stage or of all (None).

        Args:
            edge: Name of the edge.
            stage: Stage of the blocks; None for all.
            plain: Logits (B, K) without a change.
        """
        own = [block for block in self.blocks if stage in (None, block.stage)]
        for block in own:
            block.averaged = edge
        changed = self.teacher(self.images)
        for block in own:
            block.averaged = None
        return float((changed - plain).square().mean(0).sum() / plain.var(0, False).sum())

    def _score(self, best: float) -> float:
        """Return the least importance; as soon as an edge is not above `best`, that of this edge.

        Logits that are not finite or too large have a negative score.
        """
        self._estimate_statistics()
        plain = self.teacher(self.images)
        variance = float(plain.var(0, False).sum())
        if not math.isfinite(variance):
            return -math.inf
        if variance > self.loudest:
            return -variance
        least = math.inf
        for place, (edge, stage) in enumerate(self.edges):
            least = min(least, self.importance(edge, stage, plain))
            if not least > best:
                # This edge fails first next time too, most often: so it is asked first.
                self.edges.insert(0, self.edges.pop(place))
                break
        return least

    def _redraw(self, unit: nn.Module) -> None:
        low, high = (math.log(gain) for gain in GAINS)
        draw = torch.rand((), generator=self.generator).item()
        gain = math.exp(low + (high - low) * draw)
        for parameter in unit.parameters():
            normal = torch.randn(parameter.shape, generator=self.generator)
            initial = self.constants.get(parameter)
            if initial is None:
                # Only kernels have four dimensions; others act on one number each.
                fan_in = parameter[0].numel() if parameter.dim() == 4 else 1
                values = normal * (gain / math.sqrt(fan_in))
            elif initial:
                values = gain * initial * normal.exp()
            else:
                values = gain * normal
            parameter.copy_(values)

    def _estimate_statistics(self) -> None:
        for norm in self.norms:
            norm.reset_running_stats()
            norm.momentum = 1.0  # the statistics of this batch
            norm.train()
        self.teacher(self.images)
        for norm in self.norms:
            norm.eval()
