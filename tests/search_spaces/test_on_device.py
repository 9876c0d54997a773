"""What a GPU would be asked to do, told without one: tensors of the device `meta` stand for its."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from search_spaces.genotype import PUBLISHED
from search_spaces.mixture import Mixture
from search_spaces.network import NetworkSpec, Supernet
from search_spaces.ops.kernels import mode
from search_spaces.space import SearchSpace

SPEC = NetworkSpec("resnet8", 10, 1, (16, 16), {"width": 8})
SPACE = SearchSpace.load("sase")


class Crossings(TorchDispatchMode):
    """Notes operations that carry numbers from the device to the host or back."""

    def __init__(self) -> None:
        super().__init__()
        self.noted = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        read, written = (
            {x.device.type for x in tree_leaves(t) if isinstance(x, Tensor) and x.ndim}
            for t in ((args, kwargs), result)
        )
        if len(read | written) > 1 or "_local_scalar_dense" in operation.name():
            self.noted.append(operation.name())
        return result


@pytest.fixture
def on_device(monkeypatch):
    """Let tensors on `meta` take the way of those on a GPU."""
    is_traced = mode.is_traced
    for name, module in list(sys.modules.items()):
        if name.startswith("search_spaces.") and hasattr(module, "is_traced"):
            monkeypatch.setattr(module, "is_traced", lambda _: is_traced(torch.empty(0)))
    return torch.device("meta")


def test_a_crossing_would_be_noted(on_device):
    with Crossings() as crossings:
        torch.ones(3).to(on_device) + torch.ones(3, device=on_device)
    assert crossings.noted == ["aten::_to_copy"]


@pytest.mark.parametrize("kind", ["discrete", "supernet"])
def test_a_training_pass_stays_on_the_device(kind, on_device):
    """Any crossing would make Python and the GPU wait for each other, and forbid CUDA graphs."""
    if kind == "discrete":
        forward = SPEC.with_genotype(PUBLISHED).to(on_device)
    else:
        supernet = Supernet(SPEC, SPACE).to(on_device)
        alpha = [torch.zeros(7, device=on_device, requires_grad=True) for _ in SPACE.variables]

        def forward(images):
            return supernet(images, Mixture([a.softmax(0) for a in alpha]))

    images = torch.empty(4, 1, 16, 16, device=on_device)
    with mode.fused():
        forward(images).sum().backward()  # constants are made, and kept
        with Crossings() as crossings:
            forward(images).sum().backward()
    assert crossings.noted == []
