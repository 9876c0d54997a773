"""Operations stay finite, and keep their gradients, where the published ones do not."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from search_spaces.ops import build_op, operations
from search_spaces.ops.kernels import reference_statistics as statistics
from search_spaces.ops.layers.batch_norm import BatchNorm2d
from search_spaces.ops.layers.conv import Conv2d, MapConv2d
from search_spaces.ops.layers.resized_affine import resize_grid

BUILT = (6, 5)
OPS = [pytest.param(op.kind, op.name, id=f"{op.kind}-{op.name}") for op in operations()]
STATISTICS: dict[str, Callable[..., Tensor]] = {
    "mean": statistics.mean,
    "maximum": statistics.maximum,
    "p_norm_2": lambda x, dim: statistics.p_norm(x, dim, 2),
    "p_norm_4": lambda x, dim: statistics.p_norm(x, dim, 4),
    "root_mean_square": statistics.root_mean_square,
    "standard_deviation": statistics.standard_deviation,
    "third_moment": statistics.third_moment,
}
NORMS = [name for name in STATISTICS if "norm" in name or name[0] in "rs"]
PRECISIONS: dict[str, tuple[torch.dtype, Callable[[], AbstractContextManager[object]]]] = {
    "float32": (torch.float32, nullcontext),
    "float16 input": (torch.float16, nullcontext),
    "bfloat16 input": (torch.bfloat16, nullcontext),
    "float16 autocast": (torch.float16, lambda: torch.autocast("cpu", torch.float16)),
    "bfloat16 autocast": (torch.float32, lambda: torch.autocast("cpu", torch.bfloat16)),
}
MAPS: dict[str, Callable[[], Tensor]] = {
    "zeros": lambda: torch.zeros(2, 6, 6, 5),
    "constant": lambda: torch.full((2, 6, 6, 5), 0.1),
    "large": lambda: torch.full((2, 6, 6, 5), 300.0),
    "large of both signs": lambda: 300 * torch.randn(2, 6, 9, 4).sign(),
    "one pixel": lambda: torch.randn(2, 6, 1, 1),
    "one value": lambda: torch.ones(1, 1, 1, 1),
    "batch of one": lambda: torch.randn(1, 7, 4, 11),
    "one row, one channel": lambda: torch.randn(2, 1, 1, 9),
}


def as_input(kind: str, x: Tensor) -> Tensor:
    """Cut a feature map to the shape that operations of this kind read."""
    if kind == "channel_excite":
        return x[:, :, :1, :1]
    return x[:, :1] if kind == "spatial_excite" else x


def squeezed_shape(kind: str, x: Tensor) -> tuple[int, ...]:
    b, c, h, w = x.shape
    return (b, c, 1, 1) if kind.startswith("channel") else (b, 1, h, w)


@pytest.mark.parametrize("dim", [(2, 3), (1,)], ids=str)
@pytest.mark.parametrize("name", STATISTICS)
def test_gradient_of_statistics(name: str, dim: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: STATISTICS[name](x, dim), x)
    assert gradgradcheck(lambda x: STATISTICS[name](x, dim), x)


def test_gradient_of_covariance() -> None:
    assert gradcheck(
        statistics.covariance, torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    )


@pytest.mark.parametrize(("kind", "name"), OPS)
def test_gradient_of_operations(kind: str, name: str) -> None:
    torch.manual_seed(0)
    op = build_op(kind, name, 5, (3, 4), dtype=torch.float64).eval()
    x = as_input(kind, torch.randn(2, 5, 4, 3, dtype=torch.float64)).requires_grad_()
    assert gradcheck(op, x, fast_mode=True)


@pytest.mark.parametrize("scale", [1e-15, 1e-6, 1e6, 1e15])
@pytest.mark.parametrize("name", NORMS)
def test_norms_scale_with_their_input(name: str, scale: float) -> None:
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(STATISTICS[name](x, (2, 3)).sum(), x)
    scaled = (x.detach() * scale).requires_grad_()
    y = STATISTICS[name](scaled, (2, 3))
    torch.testing.assert_close(y / scale, STATISTICS[name](x, (2, 3)))
    torch.testing.assert_close(torch.autograd.grad(y.sum(), scaled)[0], gradient)


@pytest.mark.parametrize("name", NORMS)
def test_norms_are_zero_with_zero_gradient_at_zero(name: str) -> None:
    x = torch.zeros(2, 3, 4, 5, requires_grad=True)
    y = STATISTICS[name](x, (2, 3))
    y.sum().backward()
    assert torch.equal(y, torch.zeros(2, 3, 1, 1))
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_norm_of_one_dominant_value_keeps_its_gradient() -> None:
    x = torch.tensor([[-3.0, 0.0, 1e-20]], requires_grad=True)
    y = statistics.p_norm(x, (1,), 4)
    y.sum().backward()
    assert y.item() == 3
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor([[-1.0, 0.0, 0.0]]))


def test_statistics_of_a_single_observation_are_zero() -> None:
    x = torch.randn(2, 3, 1, 1)
    assert not statistics.standard_deviation(x, (2, 3)).any()
    assert not statistics.covariance(x.flatten(2)).any()


@pytest.mark.parametrize("content", MAPS)
@pytest.mark.parametrize(("kind", "name"), OPS)
def test_finite_value_and_gradients(kind: str, name: str, content: str) -> None:
    torch.manual_seed(0)
    full = MAPS[content]()
    for (precision, (dtype, context)), training in product(PRECISIONS.items(), (False, True)):
        op = build_op(kind, name, full.shape[1], BUILT).train(training)
        x = as_input(kind, full).detach().to(dtype, copy=True).requires_grad_()
        with context():
            y = op(x)
        y.mean().backward()
        assert y.dtype == torch.float32
        assert tuple(y.shape) == squeezed_shape(kind, x)
        for tensor in (y, x.grad, *(p.grad for p in op.parameters())):
            assert tensor is not None, (precision, training)
            assert tensor.isfinite().all(), (precision, training)


@pytest.mark.parametrize(("kind", "name"), OPS)
def test_autocast_costs_no_precision(kind: str, name: str) -> None:
    op = build_op(kind, name, 6, BUILT).eval()
    x = as_input(kind, torch.randn(2, 6, 6, 5))
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype):
            under_autocast = op(x)
        assert torch.equal(under_autocast, op(x))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("kind", "name"), OPS)
def test_parameters_of_half_precision(kind: str, name: str, training: bool) -> None:
    op = build_op(kind, name, 6, BUILT, dtype=torch.bfloat16).train(training)
    assert all(p.dtype == torch.bfloat16 for p in op.parameters())
    x = as_input(kind, torch.randn(3, 6, 9, 4))
    reference = copy.deepcopy(op).float()(x)
    torch.testing.assert_close(op(x), reference, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("kind", "name"), OPS)
def test_copies_and_pickles(kind: str, name: str) -> None:
    op = build_op(kind, name, 6, BUILT).eval()
    x = as_input(kind, torch.randn(2, 6, 6, 5))
    for twin in (copy.deepcopy(op), pickle.loads(pickle.dumps(op))):
        assert torch.equal(twin(x), op(x))


@pytest.mark.parametrize(("kind", "name"), OPS)
def test_builds_on_a_device(kind: str, name: str) -> None:
    op = build_op(kind, name, 6, BUILT, device="meta")
    assert all(t.device.type == "meta" for t in (*op.parameters(), *op.buffers()))
    x = as_input(kind, torch.empty(2, 6, 6, 5, device="meta"))
    assert tuple(op(x).shape) == squeezed_shape(kind, x)


class AllOps(nn.Module):
    """Every operation of one kind, added up."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.ops = nn.ModuleList(build_op(kind, op.name, 6, BUILT) for op in operations(kind))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([op(x) for op in self.ops])


KINDS = ["channel_squeeze", "channel_excite", "spatial_squeeze", "spatial_excite"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_compiles_without_graph_breaks(kind: str) -> None:
    ops = AllOps(kind)
    x = as_input(kind, torch.randn(2, 6, 6, 5))
    expected = copy.deepcopy(ops)(x)
    compiled = torch.compile(ops, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(x), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_exports_for_any_batch_and_map_size(kind: str) -> None:
    ops = AllOps(kind).eval()
    axes = (0,) if kind == "channel_excite" else (0, 2, 3)
    dynamic = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
    x = as_input(kind, torch.randn(2, 6, *BUILT))
    exported = torch.export.export(ops, (x,), dynamic_shapes=(dynamic,)).module()
    for shape in ((2, 6, *BUILT), (3, 6, 11, 7)):
        y = as_input(kind, torch.randn(shape))
        torch.testing.assert_close(exported(y), ops(y))


def test_batch_norm_of_a_single_value_uses_the_running_statistics() -> None:
    norm = BatchNorm2d(2)
    norm(torch.randn(4, 2, 3, 3))
    before = copy.deepcopy(norm.state_dict())
    x = torch.tensor([3.0, -1.0]).reshape(1, 2, 1, 1)
    y = norm(x).flatten()
    expected = (x.flatten() - before["running_mean"]) / (before["running_var"] + 1e-5).sqrt()
    torch.testing.assert_close(y, expected)
    for key, value in norm.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_torchs_elsewhere(affine: bool, momentum: float | None) -> None:
    ours = BatchNorm2d(3, affine=affine, momentum=momentum)
    torchs = nn.BatchNorm2d(3, affine=affine, momentum=momentum)
    for shape in ((4, 3, 2, 5), (2, 3, 1, 1), (1, 3, 1, 2)):
        x = torch.randn(shape)
        assert torch.equal(ours(x), torchs(x))
    for key, value in torchs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)
    assert torch.equal(ours.eval()(x), torchs.eval()(x))


def test_convolution_has_no_bias_and_keeps_the_size() -> None:
    conv = Conv2d(2, 4, (3, 5), groups=2, same=True)
    assert conv.bias is None
    assert conv(torch.randn(1, 2, 6, 7)).shape == (1, 4, 6, 7)


def test_resizing_to_the_same_size_is_the_identity_in_an_exported_graph_too() -> None:
    class Resize(nn.Module):
        def forward(self, grid: Tensor) -> Tensor:
            return resize_grid(grid, BUILT)

    grid = torch.randn(BUILT)
    exported = torch.export.export(Resize(), (grid,)).module()
    assert torch.equal(exported(grid), grid)


@pytest.mark.parametrize("kernel", [(3, 3), (7, 7), (1, 5), (5, 1)])
def test_map_convolution_has_torchs_gradients_of_first_and_second_order(
    kernel: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    conv = MapConv2d(kernel, dtype=torch.float64)
    x = torch.randn(2, 1, 6, 5, dtype=torch.float64, requires_grad=True)
    margins = (kernel[0] // 2, kernel[1] // 2)
    found, expected = [], []
    for y, into in (
        (conv(x), found),
        (torch.nn.functional.conv2d(x, conv.weight, padding=margins), expected),
    ):
        first = torch.autograd.grad(y.sin().sum(), (x, conv.weight), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), (x, conv.weight))
        into += [y, *first, *second]
    torch.testing.assert_close(found, expected)
