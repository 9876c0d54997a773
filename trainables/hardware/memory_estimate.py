"""Memory that a training needs, counted without the device that it will run on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from search_spaces.ops.kernels.mode import fused

COPIES = {"sgd": 3, "adamw": 4}
"""Values per parameter: itself, its gradient, and the optimiser's state."""

SAMPLE = 2
"""Number of images of the batch that is counted; fewer have no batch statistics."""


def training_footprint(
    network: nn.Module,
    shape: tuple[int, int, int],
    batch_size: int,
    optimizer: str,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> int:
    """Return the bytes that a training step needs at least, in float32.

    It counts parameters, gradients, the optimiser's state, and the tensors that the forward pass
    saves for the backward pass, which grow with the batch. Temporary memory of single operations,
    and that of the device's own libraries, is not included.

    Args:
        network: Network on the CPU; its running statistics change.
        shape: Shape of an image, (C, H, W).
        batch_size: Images per step.
        optimizer: Key of `COPIES`.
        forward: Function to call instead of the network.
    """
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)  # otherwise its memory could be reused, and counted only once
        return tensor

    kept: list[Tensor] = []
    with torch.enable_grad(), fused(), saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = (forward or network)(torch.zeros(SAMPLE, *shape))
    parameters = sum(p.numel() * p.element_size() for p in network.parameters())
    del logits
    return parameters * COPIES[optimizer] + sum(saved.values()) * batch_size // SAMPLE
