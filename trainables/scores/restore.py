"""Restoring a network to its state before it was scored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def restored(network: nn.Module) -> Iterator[None]:
    """Restore a network's modes, buffers and `requires_grad`, and torch's random state, on exit."""
    modes = {module: module.training for module in network.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    trained = {parameter: parameter.requires_grad for parameter in network.parameters()}
    devices = {p.device for p in network.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(list(devices)):
            for parameter in trained:
                parameter.requires_grad_(True)
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, is_trained in trained.items():
            parameter.requires_grad_(is_trained)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
