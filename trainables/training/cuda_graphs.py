"""Training passes as CUDA graphs: thousands of small kernels, launched as one.

A supernet's pass launches thousands of kernels, most of which take a GPU less time than it takes
Python to launch them. A graph is recorded once for each kind of pass and then replayed.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from search_spaces.mixture import Mixture
from trainables.training.loop import random_state, set_random_state
from trainables.training.protocol import TrainingProtocol

MOST_GRAPHS = 4
"""Kinds of pass of one network that are kept, each with the memory of its activations."""


def as_graphs(
    network: nn.Module, protocol: TrainingProtocol, device: torch.device
) -> nn.Module | GraphedNetwork:
    """Return the network, or a wrapper that replays its passes where the protocol asks for it."""
    return GraphedNetwork(network) if protocol.cuda_graphs and device.type == "cuda" else network


class GraphedNetwork:
    """A network or supernet whose training passes are CUDA graphs; called like the network.

    A pass is recorded when its kind, i.e. the shapes of its inputs and the precision, occurs first.
    Torch runs it three times for that; running statistics are afterwards as before. A pass without
    a graph runs like without this wrapper: in evaluation mode, without gradients, of a mixture that
    leaves operations out, of any kind beyond the first `MOST_GRAPHS`, and of a network that cannot
    be recorded, e.g. because it reads a number from the device, which a warning says once.

    The next pass overwrites the memory of logits and of the gradients of the network's parameters.
    There are no gradients of gradients.

    Args:
        network: Network on a GPU, without hooks in its parts. Which of its parameters need a
            gradient, and which of its parts are in evaluation mode, must not change.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._passes: dict[tuple[object, ...], Callable[..., Tensor] | None] = {}

    def __call__(self, images: Tensor, mixture: Mixture | None = None) -> Tensor:
        """Return the logits (B, classes) of images (B, C, H, W)."""
        weights = [] if mixture is None else mixture.tensors()
        if weights is not None and self.network.training and torch.is_grad_enabled():
            inputs = [images, *weights]
            kind = (*_precision(images.device), *(_kind(tensor) for tensor in inputs))
            if kind not in self._passes and len(self._passes) < MOST_GRAPHS:
                self._passes[kind] = _record(self.network, mixture, inputs)
            if (recorded := self._passes.get(kind)) is not None:
                return recorded(*inputs)
        own = (images,) if mixture is None else (images, mixture)
        logits: Tensor = self.network(*own)
        return logits


def _kind(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.requires_grad


def _precision(device: torch.device) -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)


class _Pass(nn.Module):
    """A network as a function of tensors alone, in the precision of where it was made."""

    def __init__(self, network: nn.Module, mixture: Mixture | None, device: torch.device) -> None:
        super().__init__()
        self.network = network
        self.mixture = mixture
        # What autocast keeps of one pass would be missing in the next one's graph.
        enabled, dtype = _precision(device)
        self.precision = torch.autocast(device.type, dtype, enabled=enabled, cache_enabled=False)

    def forward(self, images: Tensor, *weights: Tensor) -> Tensor:
        with self.precision:
            if self.mixture is None:
                logits: Tensor = self.network(images)
            else:
                logits = self.network(images, self.mixture.with_tensors(weights))
        return logits


def _record(
    network: nn.Module, mixture: Mixture | None, inputs: Sequence[Tensor]
) -> Callable[..., Tensor] | None:
    """Return a function that replays the pass; None, with a warning, if it cannot be recorded."""
    gc.collect()  # memory of graphs that are no longer used, which older versions of torch keep
    # Torch's own warm-up runs on another stream, which costs nothing later.
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    device = inputs[0].device
    examples = tuple(x.detach().clone().requires_grad_(x.requires_grad) for x in inputs)
    # Not the mixture itself, which would keep the graph that it was made by.
    own_mixture = None if mixture is None else mixture.with_tensors(examples[1:])
    own_pass = _Pass(network, own_mixture, device)
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    drawn = random_state(device)
    recorded: Callable[..., Tensor] | None = None
    try:
        # The backward pass is recorded here too, and is not run under autocast.
        with torch.autocast(device.type, enabled=False):
            recorded = cast(
                Callable[..., Tensor],
                torch.cuda.make_graphed_callables(own_pass, examples, allow_unused_input=True),
            )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        # A recording that ran out of memory may also fail to end.
        if isinstance(error.__context__, torch.OutOfMemoryError):
            raise error.__context__ from None
        _restore_generator(device)
        reason = str(error).splitlines()[0]
        warnings.warn(f"this network trains without CUDA graphs: {reason}", stacklevel=2)
    # As they were before the passes that precede the recording.
    set_random_state(drawn, device)
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    return recorded


def _restore_generator(device: torch.device) -> None:
    """Give the device's generator a new state, since it stays in a recording that has failed."""
    if device.type == "cuda":
        generator = torch.cuda.default_generators[device.index or 0]
        generator.graphsafe_set_state(torch.Generator(device).graphsafe_get_state())
