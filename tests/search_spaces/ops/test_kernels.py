"""The fast block equals the one that is evaluated operation by operation, gradients included."""

from __future__ import annotations

import copy
import gc
import inspect
import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces import super_block
from search_spaces.block import SASE
from search_spaces.mixture import Mixture
from search_spaces.ops.kernels import autograd
from search_spaces.ops.kernels import channel_statistics as channels
from search_spaces.ops.kernels import position_formulas as formulas
from search_spaces.ops.kernels import position_statistics as positions
from search_spaces.ops.kernels import reference_statistics as statistics
from search_spaces.ops.kernels.mode import fused
from search_spaces.ops.kernels.recalibrate import recalibrate
from search_spaces.ops.layers import conv
from search_spaces.ops.squeeze import FeatureMap
from search_spaces.space import SearchSpace
from search_spaces.super_block import SuperSASE

sys.path.insert(0, str(Path(__file__).parents[1]))
from plain import plain_super_block  # type: ignore[import-not-found]

SPACE = SearchSpace.load("sase")
SHAPES = [
    (3, 16, 8, 8), (2, 6, 7, 5), (2, 5, 16, 24), (3, 16, 1, 1), (2, 33, 3, 11), (1, 4, 1, 9),
]  # fmt: skip


def weights(kind: str, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
    sizes = [len(variable.choices) for variable in SPACE.variables]
    if kind == "one-hot":
        picks = [int(torch.randint(n, (), generator=generator)) for n in sizes]
        return [torch.eye(n, dtype=dtype)[i].clone() for n, i in zip(sizes, picks, strict=True)]
    return [torch.randn(n, generator=generator, dtype=dtype).softmax(0) for n in sizes]


def stirred(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Move every parameter and running statistic off its initial value."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter)
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer += torch.rand(buffer.shape, generator=generator).to(buffer)
    return module


def values_and_gradients(run, block: nn.Module, x: Tensor, alpha: list[Tensor]) -> dict:
    x = x.clone().requires_grad_()
    alpha = [a.clone().requires_grad_() for a in alpha]
    y = run(block, x, alpha)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(7)).to(y)
    named = {
        "x": x,
        **{f"alpha {i}": a for i, a in enumerate(alpha)},
        **dict(block.named_parameters()),
    }
    gradients = torch.autograd.grad(
        (y * direction).sum(), list(named.values()), allow_unused=True, materialize_grads=True
    )
    buffers = {name: buffer.clone() for name, buffer in block.named_buffers()}
    return {"y": y.detach(), **dict(zip(named, gradients, strict=True)), **buffers}


def compare(first: dict, second: dict, rtol: float, atol: float) -> None:
    for name, value in first.items():
        scale = max(1.0, float(value.double().abs().max())) if value.numel() else 1.0
        torch.testing.assert_close(
            value, second[name], rtol=rtol, atol=atol * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("kind", ["softmax", "one-hot"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_super_block_equals_the_plain_one(shape, kind: str, training: bool) -> None:
    generator = torch.Generator().manual_seed(sum(shape) + training)
    block = SuperSASE(shape[1], SPACE, size=(8, 8), dtype=torch.float64)
    stirred(block, generator).train(training)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    alpha = weights(kind, generator, torch.float64)
    twin = copy.deepcopy(block)
    fast = values_and_gradients(lambda b, x, a: b(x, a), block, x, alpha)
    plain = values_and_gradients(plain_super_block, twin, x, alpha)
    compare(plain, fast, rtol=1e-10, atol=1e-10)

    single = copy.deepcopy(twin).float()
    alpha = [a.float() for a in alpha]
    rough = values_and_gradients(lambda b, x, a: b(x, a), single, x.float(), alpha)
    own = values_and_gradients(plain_super_block, copy.deepcopy(twin).float(), x.float(), alpha)
    # As far off the float64 result as the plain form is in the same precision, and a little more.
    for name, exact in values_and_gradients(
        plain_super_block, twin, x.float().double(), [a.double() for a in alpha]
    ).items():
        error, allowed = (float((r[name].double() - exact).abs().max()) for r in (rough, own))
        scale = max(1.0, float(exact.double().abs().max()))
        assert error <= 10 * allowed + 2e-5 * scale, name


@pytest.mark.parametrize("seed", range(30))
def test_discrete_block_equals_the_plain_one(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = SHAPES[seed % len(SHAPES)]
    genotype = SPACE[int(torch.randint(SPACE.size, (), generator=generator))]
    block = SASE(shape[1], genotype, size=(8, 8), dtype=torch.float64)
    stirred(block, generator).train(bool(seed % 2))
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    twin = copy.deepcopy(block)
    plain = values_and_gradients(lambda b, x, _: b(x), twin, x, [])
    with fused():
        fast = values_and_gradients(lambda b, x, _: b(x), block, x, [])
    compare(plain, fast, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_with_weights_on_the_joins(training: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    block = SuperSASE(16, SPACE, size=(8, 8), dtype=torch.float64)
    stirred(block, generator).train(training)
    x = torch.randn(3, 16, 8, 8, generator=generator, dtype=torch.float64)
    joins = [torch.tensor(pair, dtype=torch.float64) for pair in ((0.3, 0.7), (0.9, 0.1))]
    alpha = [*weights("softmax", generator, torch.float64), *joins]
    twin = copy.deepcopy(block)

    def mixture(alpha: list[Tensor]) -> Mixture:
        return Mixture(alpha[:6], (alpha[6], alpha[7]))

    fast = values_and_gradients(lambda b, x, a: b(x, mixture(a)), block, x, alpha)
    plain = values_and_gradients(
        lambda b, x, a: plain_super_block(b, x, mixture(a)), twin, x, alpha
    )
    compare(plain, fast, rtol=1e-10, atol=1e-10)


def test_bf16_features_with_their_many_ties() -> None:
    generator = torch.Generator().manual_seed(5)
    block = stirred(SuperSASE(16, SPACE, size=(8, 8)), generator)
    x = torch.randn(3, 16, 8, 8, generator=generator).bfloat16()
    assert len(x.unique()) < x.numel() / 2
    alpha = weights("softmax", generator, torch.float32)
    twin = copy.deepcopy(block)
    fast = values_and_gradients(lambda b, x, a: b(x, a), block, x, alpha)
    plain = values_and_gradients(plain_super_block, twin, x, alpha)
    compare(plain, fast, rtol=0.02, atol=0.02)
    assert fast["y"].dtype == torch.bfloat16


@pytest.mark.parametrize("case", ["zeros", "constant", "after a ReLU", "offset", "tiny", "huge"])
def test_finite_and_close_where_cancellation_threatens(case: str) -> None:
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(2, 8, 8, 8, generator=generator)
    x = {
        "zeros": x * 0,
        "constant": x * 0 + 0.3,
        "after a ReLU": x.relu() * (torch.rand(2, 1, 8, 8, generator=generator) > 0.5),
        "offset": x + 100,
        "tiny": x * 1e-15,
        "huge": x * 1e15,
    }[case]
    for gate in (None, torch.rand(2, 8, 1, 1, generator=generator) + 0.5):
        names = frozenset(positions.NEEDS)
        (fast,) = positions.measure_positions(x, [positions.GatedMap(names, gate)])
        exact = x.double() if gate is None else x.double() * gate.double()
        size = float(exact.abs().max())
        # The third power of what is tiny or huge is beyond float32.
        beyond = {"third_moment"} if case in ("tiny", "huge") else set()
        for name in names - beyond:
            plain = channels.PLAIN[name](exact, (1,))
            error = float((fast[name].double() - plain).abs().max())
            # A root of what cancels is known to the root of the precision.
            degree, precision = (3, 1e-5) if name == "third_moment" else (1, 2e-3)
            assert error <= precision * size**degree, name


@pytest.mark.parametrize("size", [1e-37, 1e-39, 1e-44])
@pytest.mark.parametrize("gated", [False, True])
def test_numbers_next_to_zero_stay_finite(size: float, gated: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    x = (torch.randn(2, 8, 8, 8, generator=generator).relu() * size).requires_grad_()
    gate = torch.rand(2, 8, 1, 1, generator=generator) if gated else None
    (found,) = positions.measure_positions(
        x, [positions.GatedMap(frozenset(positions.NEEDS), gate)]
    )
    found |= channels.measure_channels(x, frozenset({*channels.PLAIN, *channels.AVERAGES}))
    (gradient,) = torch.autograd.grad(sum(y.sum() for y in found.values()), x)
    for name, value in {**found, "gradient": gradient}.items():
        assert value.isfinite().all(), name


def test_gradients_of_gradients() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    gate = torch.rand(2, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    names = frozenset(channels.PLAIN)

    def measured(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(channels.measure_channels(x, names).values())

    def positioned(x: Tensor, gate: Tensor) -> tuple[Tensor, ...]:
        maps = [positions.GatedMap(frozenset(positions.NEEDS), g) for g in (None, gate)]
        return tuple(v for found in positions.measure_positions(x, maps) for v in found.values())

    def averaged(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(channels.measure_channels(x, frozenset(channels.AVERAGES)).values())

    def normed(*inputs: Tensor) -> Tensor:
        a, b, *sums = inputs
        return formulas.norm_of_affine(a, b, 4, *sums)

    scale, shift = torch.rand(2, 3, 5, dtype=torch.float64).requires_grad_().unbind()
    y = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    linear, squares = y.sum(1, keepdim=True), y.square().sum(1, keepdim=True)
    linear.requires_grad_(), squares.requires_grad_()
    spatial = torch.rand(2, 1, 3, 5, dtype=torch.float64, requires_grad=True)
    cells = torch.randn(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    for function, inputs in (
        (measured, (x,)),
        (averaged, (cells,)),
        (positioned, (x, gate)),
        (fused()(recalibrate), (x, gate, spatial)),
        (normed, (scale, shift, linear, squares)),
    ):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("kind", [SASE, SuperSASE])
def test_gradients_of_gradients_of_the_parameters_alone(kind: type) -> None:
    """The map itself needs none, as in a block behind a frozen host."""
    torch.manual_seed(0)
    x = torch.randn(3, 8, 8, 8, dtype=torch.float64)
    alpha = weights("random", torch.Generator().manual_seed(0), torch.float64)
    block = SASE(8) if kind is SASE else SuperSASE(8, SPACE)
    block = stirred(block.double(), torch.Generator().manual_seed(1))
    inner = dict(block.named_parameters())
    arguments = (x,) if kind is SASE else (x, alpha)
    with fused():
        fast = block(*arguments)
    found = []
    for y in (fast, block(x) if kind is SASE else plain_super_block(block, x, alpha)):
        first = torch.autograd.grad(
            y.square().sum(), inner.values(), create_graph=True, materialize_grads=True
        )
        total = sum(g.square().sum() for g in first)
        found.append(torch.autograd.grad(total, inner.values(), materialize_grads=True))
    for name, own, other in zip(inner, *found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.parametrize("other", [None, "mean", "third_moment"])
@pytest.mark.parametrize("name", list(positions.NEEDS))
def test_positions_of_two_maps_that_want_different_things(name: str, other: str | None) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    gate = torch.rand(2, 5, 1, 1, generator=generator, dtype=torch.float64, requires_grad=True)
    wanted = [frozenset({name}), frozenset({other} if other else ())]
    maps = [positions.GatedMap(wanted[0], gate), positions.GatedMap(wanted[1])]
    found = positions.measure_positions(x, maps)
    plain = {**channels.PLAIN, "p_norm": lambda x, dim: statistics.p_norm(x, dim, 4)}
    expected = [
        {n: plain[n](map_, (1,)) for n in names}
        for names, map_ in zip(wanted, (gate * x, x), strict=True)
    ]
    assert [set(own) for own in found] == [set(own) for own in expected]
    for own, right in zip(found, expected, strict=True):
        for n, value in own.items():
            torch.testing.assert_close(value, right[n], rtol=1e-10, atol=1e-10)
            given = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            slopes = [
                torch.autograd.grad(v, (x, gate), given, retain_graph=True, materialize_grads=True)
                for v in (value, right[n])
            ]
            torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", [(3, 3), (7, 7), (1, 5)], ids=str)
@pytest.mark.parametrize("kernels", [1, 3])
@pytest.mark.parametrize("shape", [(2, 1, 9, 7), (20, 1, 32, 32)], ids=["small", "large"])
def test_maps_are_convolved_alike_in_every_way(
    shape: tuple[int, ...], kernels: int, kernel: tuple[int, int]
) -> None:
    assert (math.prod(shape) > conv.SMALL) == (shape[0] == 20)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(kernels, 1, *kernel, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(x, weight, padding=(kernel[0] // 2, kernel[1] // 2))
    convolved = conv.convolve_map(x, weight)
    torch.testing.assert_close(convolved, expected)
    with torch.no_grad():
        torch.testing.assert_close(conv.convolve_map(x, weight), expected)
    sign = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(convolved, (x, weight), sign),
        torch.autograd.grad(expected, (x, weight), sign),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(2, 9, 12, 16), (2, 8, 16, 24), (1, 3, 8, 8), (3, 6, 7, 5)])
def test_averages_are_those_of_adaptive_pooling(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    found = channels.measure_channels(x, frozenset({"grid", "groups", "mean"}))
    groups = F.adaptive_avg_pool3d(x, (max(1, shape[1] // 4), *shape[2:]))
    pooled = {"grid": F.adaptive_avg_pool2d(x, 8), "groups": groups, "mean": x.mean((2, 3), True)}
    for name, expected in pooled.items():
        torch.testing.assert_close(found[name], expected)
    ours, theirs = (
        torch.autograd.grad(sum(y.cos().sum() for y in values.values()), x)
        for values in (found, pooled)
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_second_gradients_of_a_whole_block(training: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    block = SuperSASE(4, SPACE, size=(8, 8), dtype=torch.float64)
    stirred(block, generator).train(training)
    x = torch.randn(3, 4, 8, 8, generator=generator, dtype=torch.float64)
    alpha = weights("softmax", generator, torch.float64)

    def second(run) -> tuple[Tensor, ...]:
        own = [a.clone().requires_grad_() for a in alpha]
        y = run(copy.deepcopy(block), x.clone().requires_grad_(), own)
        first = torch.autograd.grad(y.square().sum(), own, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), own)

    for ours, theirs in zip(
        second(lambda b, x, a: b(x, a)), second(plain_super_block), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_parts_of_a_batch_are_put_together_as_the_whole(monkeypatch) -> None:
    x = torch.randn(5, 4, 8, 8, dtype=torch.float64)
    block = SuperSASE(4, SPACE, size=(8, 8), dtype=torch.float64)
    alpha = weights("softmax", torch.Generator().manual_seed(0), torch.float64)
    whole = values_and_gradients(lambda b, x, a: b(x, a), copy.deepcopy(block), x, alpha)
    monkeypatch.setattr(autograd, "CHUNK", 2 * 4 * 8 * 8)  # two samples at a time, one left over
    parts = values_and_gradients(lambda b, x, a: b(x, a), block, x, alpha)
    compare(whole, parts, rtol=1e-12, atol=1e-12)


def test_channels_last_has_the_same_gradients(monkeypatch) -> None:
    monkeypatch.setattr(autograd, "CHUNK", 2 * 4 * 8 * 16)
    x = torch.randn(5, 4, 8, 16, dtype=torch.float64)
    block = SuperSASE(4, SPACE, size=(8, 16), dtype=torch.float64)
    alpha = weights("softmax", torch.Generator().manual_seed(0), torch.float64)

    def run(b: nn.Module, x: Tensor, a: list[Tensor], memory_format: torch.memory_format) -> Tensor:
        return b(x.contiguous(memory_format=memory_format), a)

    found = [
        values_and_gradients(
            lambda b, x, a, m=memory_format: run(b, x, a, m), copy.deepcopy(block), x, alpha
        )
        for memory_format in (torch.contiguous_format, torch.channels_last)
    ]
    compare(*found, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("view", ["every other row", "expanded batch", "transposed"])
def test_maps_that_are_views(view: str) -> None:
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    x = {
        "every other row": x[:, :, ::2],
        "expanded batch": x[:1].expand(3, -1, -1, -1),
        "transposed": x.transpose(2, 3),
    }[view]
    block = SuperSASE(4, SPACE, size=(6, 6), dtype=torch.float64).eval()
    alpha = weights("softmax", torch.Generator().manual_seed(0), torch.float64)
    torch.testing.assert_close(block(x, alpha), block(x.contiguous(), alpha))


def test_an_operation_of_a_subclass_is_not_taken_for_its_parent() -> None:
    from search_spaces.ops.channel_excite import Conv3

    class Halved(Conv3):
        def forward(self, z: Tensor) -> Tensor:
            return super().forward(z) / 2

    block = SuperSASE(4, SPACE)
    alpha = weights("one-hot", torch.Generator().manual_seed(0), torch.float32)
    index = block.choices["channel_excite"].index("conv3")
    alpha[1] = torch.eye(7)[index]
    x = torch.randn(2, 4, 8, 8)
    before = block(x, alpha) - x
    halved = Halved(4, (8, 8))
    halved.load_state_dict(block.edges["channel_excite"][index].state_dict())
    block.edges["channel_excite"][index] = halved
    # Of the two gates, the one of the channels is half as large.
    spatial = copy.deepcopy(block)
    zero = nn.Module()
    zero.forward = lambda z: 0 * z  # type: ignore[method-assign]
    spatial.edges["channel_excite"][index] = zero
    own = spatial(x, alpha) - x
    torch.testing.assert_close(block(x, alpha) - x, own + (before - own) / 2)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_transforms_of_functions(training: bool) -> None:
    block = SASE(4, "cov-fc-conv3_x2-l2norm-gap_std-sep3", size=(6, 6), dtype=torch.float64)
    for norm in (m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.track_running_stats = False
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    block.train(training)
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    parameters = dict(block.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(block, parameters, (x,)).square().sum()

    found = torch.func.grad(loss)(parameters, x)
    expected = torch.autograd.grad(loss(parameters, x), list(parameters.values()))
    for ours, theirs in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [SASE, lambda channels: SuperSASE(channels, SPACE)])
def test_a_pass_leaves_nothing_for_the_garbage_collector(make) -> None:
    block, x = make(8), torch.randn(2, 8, 8, 8, requires_grad=True)
    alpha = weights("softmax", torch.Generator().manual_seed(0), torch.float32)
    arguments = (x,) if isinstance(block, SASE) else (x, alpha)
    gc.collect()
    gc.disable()
    try:
        with fused():
            block(*arguments).sum().backward()
        left = [o for o in gc.get_objects() if type(o) is FeatureMap]
        assert not left, "its memory would be held until the collector comes by"
    finally:
        gc.enable()


@pytest.mark.usefixtures("_nothing_kept")
def test_training_after_inference_and_after_an_export() -> None:
    block = SuperSASE(4, SPACE, size=(8, 8))
    x = torch.randn(2, 4, 8, 8)
    alpha = weights("softmax", torch.Generator().manual_seed(0), torch.float32)
    with torch.inference_mode():
        block(x, alpha)
    block(x, alpha).sum().backward()
    exported = torch.export.export(block.eval(), (x, alpha), strict=False).module()
    torch.testing.assert_close(exported(x, alpha), block(x, alpha))


@pytest.fixture
def _nothing_kept(monkeypatch):
    """Constants as in a new process."""
    for module in (conv, super_block):
        name = "_places" if module is conv else "_as_index"
        kept = getattr(module, name)
        make = inspect.getclosurevars(kept).nonlocals["make"]
        monkeypatch.setattr(module, name, autograd.constant(make))
