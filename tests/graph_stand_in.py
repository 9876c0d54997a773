"""CUDA graphs without a GPU: what torch's own graph functions do, done to CPU tensors.

Recording keeps every operation with the tensors that it read and wrote; a replay runs the same
operations on the same tensors, and nothing else. So what Python decided while recording stays
decided, results lie where they lay, and numbers cannot be looked at: as with real graphs.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from search_spaces.ops.kernels import position_statistics as positions

LOOKS_AT_NUMBERS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"}


class RecordedGraph(TorchDispatchMode):
    """Stands for `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = []
        self.replays = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.name() in LOOKS_AT_NUMBERS or operation._schema.name in LOOKS_AT_NUMBERS:
            raise RuntimeError("operation not permitted when stream is capturing")
        result = operation(*args, **(kwargs or {}))
        self.operations.append((operation, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            for operation, args, kwargs, result in self.operations:
                again = operation(*args, **kwargs)
                for written, value in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(written, Tensor) and written.data_ptr() != value.data_ptr():
                        written.detach().copy_(value)


@contextmanager
def recording(graph, **options):
    with graph:
        yield


@pytest.fixture
def pretended_graphs(monkeypatch):
    """Let `torch.cuda.make_graphed_callables` work on CPU tensors; return the graphs it makes."""
    made = []

    def new_graph():
        made.append(RecordedGraph())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", new_graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda.graphs, "graph_pool_handle", lambda: (0, 0))
    # On a CPU the block looks at its numbers, on a GPU it does not.
    monkeypatch.setattr(positions._Sums, "are_safe", lambda _: False)
    return made
