"""The ends of a network's residual branches, found by one forward pass.

Wherever two feature maps of the same shape are added, the one that has passed more convolutions is
the residual branch, and the other one its shortcut. The place of attention is the module that the
branch ends with: the last normalisation of a ResNet's block, or what follows it (squeeze and
excitation, stochastic depth).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

_ADDITIONS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__}
_CONVOLUTIONS = {torch.conv2d, nn.functional.conv2d}


@dataclass(frozen=True)
class Place:
    """A place for attention: after a module of the network.

    Attributes:
        path: Dotted path of the module.
        channels: Number of channels of its output.
        size: Size (H, W) of its output.
    """

    path: str
    channels: int
    size: tuple[int, int]


def residual_places(network: nn.Module, images: Tensor) -> list[Place]:
    """Find the ends of the residual branches of a network, in the order of the forward pass.

    A branch that ends with a function, or with a module that is called several times, is left
    out.

    Args:
        network: Network from images to logits; its mode is as before afterwards.
        images: Example images, (B, C, H, W).
    """
    trace = _Trace()
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad(), _watched(network, trace.leave), trace:
            network(images)
    finally:
        network.train(was_training)
    places = dict.fromkeys(trace.ends)
    return [place for place in places if trace.calls[place.path] == 1]


def insert_after(network: nn.Module, path: str, attention: nn.Module) -> None:
    """Let a module of the network be followed by attention: it becomes ``(module, attention)``."""
    parent, _, name = path.rpartition(".")
    module = network.get_submodule(path)
    pair = nn.Sequential(OrderedDict(module=module, attention=attention))
    setattr(network.get_submodule(parent), name, pair)


@contextmanager
def _watched(network: nn.Module, leave: Callable[[str, Any], None]) -> Iterator[None]:
    def hook(path: str) -> Callable[..., None]:
        return lambda module, inputs, output: leave(path, output)

    handles = [
        module.register_forward_hook(hook(path))
        for path, module in network.named_modules()
        if path  # the network itself ends no branch
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Trace(TorchFunctionMode):
    """Trace of a forward pass: which maps are added, and which modules they came from."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[Place] = []
        self.calls: Counter[str] = Counter()
        self._convolutions: dict[int, int] = {}
        self._module: dict[int, str] = {}
        self._alive: list[Tensor] = []  # so that no other tensor gets the id of an earlier one

    def leave(self, path: str, output: Any) -> None:
        """Note that a module has ended. Of several that pass on one map, the first made it."""
        self.calls[path] += 1
        if isinstance(output, Tensor):
            self._module.setdefault(id(output), path)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        passed = max((self._convolutions.get(id(tensor), 0) for tensor in inputs), default=0)
        added = func in _ADDITIONS and len(inputs) == 2
        if added:
            self._end_of_branch(*inputs)
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._alive.append(tensor)
                self._convolutions[id(tensor)] = passed + (func in _CONVOLUTIONS)
                if added:  # also in place: it is no longer what the module returned
                    self._module.pop(id(tensor), None)
        return output

    def _end_of_branch(self, first: Tensor, second: Tensor) -> None:
        if first.dim() != 4 or first.shape != second.shape:
            return
        shortcut, branch = sorted((first, second), key=lambda t: self._convolutions.get(id(t), 0))
        path = self._module.get(id(branch))
        deeper = self._convolutions.get(id(branch), 0) > self._convolutions.get(id(shortcut), 0)
        if deeper and path is not None:
            height, width = branch.shape[2:]
            self.ends.append(Place(path, branch.shape[1], (height, width)))
