"""Signs that a one-shot search collapses onto operations that are easy to train, not good.

Zela et al., "Understanding and Robustifying Differentiable Architecture Search", ICLR 2020: before
DARTS degenerates, the validation loss becomes sharp with respect to alpha (section 4), and the
scores of the supernet and of the network extracted from it diverge. Early stopping: section 5.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor

from search_spaces.network import Supernet
from search_spaces.super_block import SuperSASE
from trainables.metrics import Metric, declare

POOR = 0.1
"""Largest share of its edge's richest operation that an operation poor in parameters has."""

ITERATIONS = 5
"""Number of power iterations per inspection; each one continues from the last vector."""

INSPECTIONS = 10
"""Number of times that a search is checked for these signs."""

WINDOW = 3
"""Number of eigenvalues averaged, and of inspections that a stop goes back (paper: 5 epochs)."""

SHARPENING = 0.75
"""Share of the present eigenvalue below which an earlier one stops the search (as in the paper)."""

declare(
    Metric("entropy", None),
    Metric("poor_share", None),
    Metric("dominant_eigenvalue", None),
    Metric("discretisation_gap", None),
)


def mean_entropy(probabilities: Mapping[str, Sequence[float]]) -> float:
    """Return the mean over edges of the entropy in nats, as a share of its maximum: 1 is uniform.

    Edges with a single operation have no entropy and are left out.
    """
    shares = []
    for row in probabilities.values():
        if len(row) > 1:
            p = torch.tensor(row, dtype=torch.float64)
            shares.append(float(torch.special.entr(p).sum() / torch.tensor(len(row)).log()))
    return fmean(shares) if shares else float("nan")


def poor_operations(supernet: Supernet) -> list[list[bool]]:
    """Return for each variable of the space which of its operations are poor in parameters."""
    blocks = [m for m in supernet.modules() if isinstance(m, SuperSASE)]
    block = blocks[-1]  # counts that depend on the width differ most in the widest one
    poor = []
    for variable in supernet.space.variables:
        operations = block.edges[variable.edge].children()
        counts = [sum(p.numel() for p in op.parameters()) for op in operations]
        poor.append([count <= POOR * max(counts) for count in counts])
    return poor


def poor_share(
    probabilities: Mapping[str, Sequence[float]], poor: Sequence[Sequence[bool]]
) -> float:
    """Return the mean over edges of the probability of operations poor in parameters."""
    return fmean(
        sum(p for p, is_poor in zip(row, flags, strict=True) if is_poor)
        for row, flags in zip(probabilities.values(), poor, strict=True)
    )


def dominant_eigenvalue(
    loss: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    vector: Tensor,
    iterations: int = ITERATIONS,
) -> tuple[float, Tensor]:
    """Return the eigenvalue of largest magnitude of a loss's Hessian, by power iteration.

    Args:
        loss: Function that computes the scalar loss from the parameters.
        parameters: Leaf tensors that require gradients.
        vector: Initial vector, as long as all parameters together; not zero.
        iterations: Number of products with the Hessian.

    Returns:
        The Rayleigh quotient, and the unit vector to continue from.
    """
    gradients = torch.autograd.grad(
        loss(), list(parameters), create_graph=True, materialize_grads=True
    )
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    vector = vector / vector.norm()
    value = 0.0
    for _ in range(iterations):
        products = torch.autograd.grad(
            flat, list(parameters), grad_outputs=vector, retain_graph=True, materialize_grads=True
        )
        product = torch.cat([part.flatten() for part in products])
        value = float(vector @ product)
        norm = product.norm()
        if not 0 < float(norm) < float("inf"):
            break  # flat, or not finite: there is no direction to continue in
        vector = product / norm
    return value, vector.detach()


class Sharpness:
    """Detector of a dominant eigenvalue that rises too fast (Zela et al., section 5.1)."""

    def __init__(self, values: Sequence[float] = ()) -> None:
        self.values = list(values)

    def collapsed(self, value: float) -> bool:
        """Add the eigenvalue of another inspection; return whether the search should have ended."""
        self.values.append(value)
        if len(self.values) < 2 * WINDOW:
            return False
        now = fmean(self.values[-WINDOW:])
        before = fmean(self.values[-2 * WINDOW : -WINDOW])
        return 0 < before < SHARPENING * now
