"""How much memory a training takes, counted without the device that it will take it on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

COPIES = {"sgd": 3, "adamw": 4}
"""Of each parameter: itself, its gradient, and what the optimiser keeps of it."""

SAMPLE = 2
"""Images of the batch that is counted; fewer have no batch statistics."""


def training_footprint(
    network: nn.Module,
    shape: tuple[int, int, int],
    batch_size: int,
    optimizer: str,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> int:
    """Return the bytes that a training step holds at least, in float32.

    Counted are parameters, gradients, the optimiser's state, and what the forward pass saves for
    the backward pass, which grows with the batch. What a single operation needs for a moment, and
    the device's own libraries, come on top.

    Args:
        network: on the CPU; its running statistics move.
        shape: (C, H, W) of an image.
        batch_size: images a step.
        optimizer: a key of `COPIES`.
        forward: what to call instead of the network.
    """
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)  # so that its memory is not used again, and counted as one
        return tensor

    kept: list[Tensor] = []
    with torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = (forward or network)(torch.zeros(SAMPLE, *shape))
    parameters = sum(p.numel() * p.element_size() for p in network.parameters())
    del logits
    return parameters * COPIES[optimizer] + sum(saved.values()) * batch_size // SAMPLE
