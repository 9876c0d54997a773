"""DARTS, second order: alpha follows the validation loss after one more step of the weights.

Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, eq. 6 to 8: the
gradient through the unrolled weight step, its Hessian-vector product by finite differences with
eps = 0.01 / ||grad_w' L_val||.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor

from sase_ray.strategies.contract import SearchTask
from sase_ray.strategies.one_shot.darts import DARTS, DARTSAlgorithm
from trainables.one_shot.algorithm import OneShotAlgorithm, StepCost
from trainables.training.loop import Batch

FINITE_STEP = 0.01
"""Length of the finite differences' step in the space of the weights, as in the paper."""


class SecondOrderDARTS(DARTS):
    """DARTS with the unrolled gradient."""

    name: ClassVar[str] = "darts-2nd"
    source: ClassVar[str] = "Liu et al. 2019, second order"
    summary: ClassVar[str] = "DARTS through one unrolled weight step; five passes a step"

    def algorithm(self, task: SearchTask) -> OneShotAlgorithm:
        """Return the second-order algorithm."""
        return SecondOrderAlgorithm(self, self.weight_protocol(task))


class SecondOrderAlgorithm(DARTSAlgorithm):
    """DARTS whose gradient with respect to alpha goes through the unrolled weight step."""

    # The weights' step, the unrolled step, its validation gradient, and two finite differences.
    step_cost = StepCost(passes=5)

    def gradient(self, train: Batch, validation: Batch) -> tuple[Tensor, ...]:
        """Return d/d alpha L_val(w - xi grad_w L_train(w, alpha), alpha) (eq. 7)."""
        weights = self.trainer.parameters
        rate = self.trainer.optimizer.param_groups[0]["lr"]
        with self._restored(weights):
            self._unroll(train, weights, rate)
            both = torch.autograd.grad(
                self.trainer.loss(validation), [*self.learned, *weights], materialize_grads=True
            )
        direct = both[: len(self.learned)]
        # Passes to come may write over the gradients of weights: see `GraphedNetwork`.
        vector = [part.clone() for part in both[len(self.learned) :]]
        implicit = self._hessian_vector_product(train, weights, vector)
        return tuple(d - rate * i for d, i in zip(direct, implicit, strict=True))

    def _unroll(self, train: Batch, weights: Sequence[Tensor], rate: float) -> None:
        """Take the step that SGD would take, momentum and weight decay included."""
        group = self.trainer.optimizer.param_groups[0]
        gradients = torch.autograd.grad(self.trainer.loss(train), weights, materialize_grads=True)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                step = gradient + group["weight_decay"] * weight
                buffer = self.trainer.optimizer.state[weight].get("momentum_buffer")
                if buffer is not None:
                    step = step + group["momentum"] * buffer
                weight.sub_(rate * step)

    def _hessian_vector_product(
        self, train: Batch, weights: Sequence[Tensor], vector: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return grad^2_{alpha,w} L_train times `vector`, by central differences (eq. 8)."""
        norm = torch.cat([part.flatten() for part in vector]).norm()
        eps = FINITE_STEP / norm.clamp_min(1e-12)
        sides = []
        for sign in (1.0, -1.0):
            with self._restored(weights):
                with torch.no_grad():
                    for weight, part in zip(weights, vector, strict=True):
                        weight.add_(part, alpha=float(sign * eps))
                sides.append(torch.autograd.grad(self.trainer.loss(train), self.learned))
        return [(plus - minus) / (2 * eps) for plus, minus in zip(*sides, strict=True)]

    @contextmanager
    def _restored(self, weights: Sequence[Tensor]) -> Iterator[None]:
        """Undo the block's changes of weights and of running statistics."""
        state = [*weights, *self.supernet.buffers()]
        saved = [tensor.detach().clone() for tensor in state]
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, before in zip(state, saved, strict=True):
                    tensor.copy_(before)
