"""Every operation against its formula, written out in numpy and scipy."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import correlate2d
from scipy.special import expit
from scipy.stats import moment
from timm.layers import SEModule
from torch import nn

from search_spaces.genotype import KINDS
from search_spaces.ops import build_op, operations
from search_spaces.ops.layers.resized_affine import resize_grid

Array = NDArray[np.float64]
Params = dict[str, Array]
Reference = Callable[[Array, Params, bool], Array]

BUILT = (7, 5)
CHANNELS = 11


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def bilinear(grid: Array, size: tuple[int, int]) -> Array:
    """Between pixel centres, position by position; outside the outermost centres, the edge."""
    if grid.shape == size:
        return grid
    (h, w), (H, W) = grid.shape, size
    out = np.empty(size)
    for i in range(H):
        for j in range(W):
            y = max((i + 0.5) * h / H - 0.5, 0)
            x = max((j + 0.5) * w / W - 0.5, 0)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            upper = grid[top, left] + (x - left) * (grid[top, right] - grid[top, left])
            lower = grid[bottom, left] + (x - left) * (grid[bottom, right] - grid[bottom, left])
            out[i, j] = upper + (y - top) * (lower - upper)
    return out


def bins(n: int, parts: int) -> list[slice]:
    """The (possibly overlapping) stretches that adaptive pooling averages."""
    return [slice(floor(i * n / parts), ceil((i + 1) * n / parts)) for i in range(parts)]


def pool(image: Array, size: tuple[int, int]) -> Array:
    rows, columns = bins(image.shape[0], size[0]), bins(image.shape[1], size[1])
    return np.array([[image[r, c].mean() for c in columns] for r in rows])


def second_order(variables: list[Array], p: Params, training: bool) -> Array:
    """(D, N) of each sample to the features (B, out)."""
    covariances = np.array([np.atleast_2d(np.cov(v)) for v in variables])
    _, d, _ = covariances.shape
    rows = np.empty(covariances.shape[:2])
    for k in range(d):
        row = covariances[:, k]
        mean = row.mean() if training else p["second_order.norm.running_mean"][k]
        var = row.var() if training else p["second_order.norm.running_var"][k]
        normed = (row - mean) / np.sqrt(var + 1e-5)
        normed = normed * p["second_order.norm.weight"][k] + p["second_order.norm.bias"][k]
        rows[:, k] = [np.dot(r, p["second_order.rows.weight"][k, 0, :, 0]) for r in normed]
    return relu(rows) @ p["second_order.mix.weight"][:, :, 0, 0].T


def over_positions(value: Callable[[Array, Params], float]) -> Reference:
    def reference(x: Array, p: Params, training: bool) -> Array:
        out = np.empty((*x.shape[:2], 1, 1))
        for b, c in np.ndindex(*x.shape[:2]):
            out[b, c] = value(x[b, c].ravel(), p)
        return out

    return reference


def over_channels(value: Callable[[Array, Params], float]) -> Reference:
    def reference(x: Array, p: Params, training: bool) -> Array:
        out = np.empty((x.shape[0], 1, *x.shape[2:]))
        for b, i, j in np.ndindex(x.shape[0], *x.shape[2:]):
            out[b, 0, i, j] = value(x[b, :, i, j], p)
        return out

    return reference


def mixed(statistic: Callable[[Array], np.floating[Any]]) -> Callable[[Array, Params], float]:
    return lambda v, p: max(0.0, float(p["weight"][0] * np.mean(v) + p["weight"][1] * statistic(v)))


STATISTICS: dict[str, Callable[[Array, Params], float]] = {
    "gap": lambda v, p: sum(v) / len(v),
    "pnorm": lambda v, p: float(np.linalg.norm(v, 4)),
    "gap_gmp": mixed(np.max),
    "gap_std": mixed(lambda v: np.std(v, ddof=1)),
    "gap_skew": mixed(lambda v: moment(v, 3)),
}


def channel_cov(x: Array, p: Params, training: bool) -> Array:
    groups = bins(x.shape[1], x.shape[1] // 4)
    variables = [np.array([sample[g].mean(0).ravel() for g in groups]) for sample in x]
    return second_order(variables, p, training)[:, :, None, None]


def spatial_cov(x: Array, p: Params, training: bool) -> Array:
    variables = [np.array([pool(c, (8, 8)).ravel() for c in sample]).T for sample in x]
    maps = second_order(variables, p, training).reshape(-1, 8, 8)
    return np.array([[pool(m, x.shape[2:])] for m in maps])


def channel_l2norm_in(x: Array, p: Params, training: bool) -> Array:
    out = np.empty((*x.shape[:2], 1, 1))
    for b, c in np.ndindex(*x.shape[:2]):
        normed = (x[b, c] - x[b, c].mean()) / np.sqrt(x[b, c].var() + 1e-5)
        a, shift = p["scale.weight"][c, 0, 0], p["scale.bias"][c, 0, 0]
        out[b, c] = np.sqrt(np.sum((a * normed + shift) ** 2))
    return out


def spatial_l2norm(x: Array, p: Params, training: bool) -> Array:
    a, shift = (bilinear(p[f"scale.{name}"], x.shape[2:]) for name in ("weight", "bias"))
    squares = np.zeros((x.shape[0], 1, *x.shape[2:]))
    for b, c in np.ndindex(*x.shape[:2]):
        normed = (x[b, c] - x[b, c].mean()) / np.sqrt(x[b, c].var() + 1e-5)
        squares[b, 0] += (a * normed + shift) ** 2
    return np.sqrt(squares)


def channel_convs(z: Array, p: Params, training: bool) -> Array:
    out = np.empty_like(z)
    for b, line in enumerate(z[:, :, 0, 0]):
        for index in range(len(p)):
            kernel = p[f"convs.{index}.weight"].ravel()
            line = relu(line) if index else line
            line = np.correlate(np.pad(line, len(kernel) // 2), kernel, "valid")
        out[b, :, 0, 0] = expit(line)
    return out


def spatial_convs(between: Callable[[Array], Array]) -> Reference:
    def reference(s: Array, p: Params, training: bool) -> Array:
        out = np.empty_like(s)
        for b, image in enumerate(s[:, 0]):
            for index in range(len(p)):
                image = between(image) if index else image
                image = correlate2d(image, p[f"convs.{index}.weight"][0, 0], mode="same")
            out[b, 0] = expit(image)
        return out

    return reference


def fc(z: Array, p: Params, training: bool) -> Array:
    hidden = np.einsum("hc,bc->bh", p["reduce.weight"][:, :, 0, 0], z[:, :, 0, 0])
    return np.einsum("ch,bh->bc", p["expand.weight"][:, :, 0, 0], relu(hidden))[:, :, None, None]


def channel_affine(z: Array, p: Params, training: bool) -> Array:
    return np.stack(
        [expit(p["scale.weight"][:, 0, 0] * v + p["scale.bias"][:, 0, 0]) for v in z[:, :, 0, 0]]
    )[:, :, None, None]


def spatial_affine(s: Array, p: Params, training: bool) -> Array:
    a, shift = (bilinear(p[f"scale.{name}"], s.shape[2:]) for name in ("weight", "bias"))
    return np.array([[expit(a * image[0] + shift)] for image in s])


REFERENCES: dict[tuple[str, str], Reference] = {
    **{("channel_squeeze", name): over_positions(value) for name, value in STATISTICS.items()},
    ("channel_squeeze", "l2norm"): over_positions(lambda v, p: (sum(v * v) / len(v)) ** 0.5),
    ("channel_squeeze", "l2norm_in"): channel_l2norm_in,
    ("channel_squeeze", "cov"): channel_cov,
    **{("spatial_squeeze", name): over_channels(value) for name, value in STATISTICS.items()},
    ("spatial_squeeze", "l2norm"): spatial_l2norm,
    ("spatial_squeeze", "cov"): spatial_cov,
    **{
        ("channel_excite", name): channel_convs
        for name in ("conv3", "conv5", "conv7", "conv3_x2", "conv3_x3")
    },
    **{("channel_excite", name): fc for name in ("fc", "fc_min8")},
    ("channel_excite", "affine"): channel_affine,
    **{
        ("spatial_excite", name): spatial_convs(relu)
        for name in ("conv3x3", "conv5x5", "conv7x7", "conv3x3_x2")
    },
    **{("spatial_excite", name): spatial_convs(lambda image: image) for name in ("sep3", "sep5")},
    ("spatial_excite", "affine"): spatial_affine,
}
SHAPES = {
    ("channel_excite", "conv3"): [(3, 1)],
    ("channel_excite", "conv5"): [(5, 1)],
    ("channel_excite", "conv7"): [(7, 1)],
    ("channel_excite", "conv3_x2"): [(3, 1)] * 2,
    ("channel_excite", "conv3_x3"): [(3, 1)] * 3,
    ("spatial_excite", "conv3x3"): [(3, 3)],
    ("spatial_excite", "conv5x5"): [(5, 5)],
    ("spatial_excite", "conv7x7"): [(7, 7)],
    ("spatial_excite", "conv3x3_x2"): [(3, 3)] * 2,
    ("spatial_excite", "sep3"): [(1, 3), (3, 1)],
    ("spatial_excite", "sep5"): [(1, 5), (5, 1)],
}
OPS = [pytest.param(*key, id="-".join(key)) for key in REFERENCES]


def random_op(kind: str, name: str) -> nn.Module:
    op = build_op(kind, name, CHANNELS, BUILT, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (*op.parameters(), *op.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.2)
        for parameter in op.parameters():
            parameter.mul_(torch.randn(parameter.shape, generator=generator))
    return op


def random_input(kind: str, size: tuple[int, int]) -> torch.Tensor:
    shape = {
        "channel_excite": (3, CHANNELS, 1, 1),
        "spatial_excite": (3, 1, *size),
    }.get(kind, (3, CHANNELS, *size))
    generator = torch.Generator().manual_seed(2)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 0.3


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("size", [BUILT, (9, 4), (3, 12)], ids=str)
@pytest.mark.parametrize(("kind", "name"), OPS)
def test_equals_its_formula(kind: str, name: str, size: tuple[int, int], training: bool) -> None:
    op = random_op(kind, name).train(training)
    x = random_input(kind, size)
    params = {key: value.numpy().copy() for key, value in op.state_dict().items()}
    expected = REFERENCES[kind, name](x.numpy(), params, training)
    np.testing.assert_allclose(op(x).detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    assert np.ptp(expected) > 0


def test_every_operation_of_the_published_space_has_a_formula_here() -> None:
    """An operation with a file of its own has its formula in a test file of its own."""
    folder = "search_spaces.ops"
    sets = {f"{folder}.{kind}" for kind in KINDS}
    published = {(op.kind, op.name) for op in operations() if op.factory.__module__ in sets}
    assert published == set(REFERENCES)


@pytest.mark.parametrize(("kind", "name"), [pytest.param(*k, id="-".join(k)) for k in SHAPES])
def test_kernels(kind: str, name: str) -> None:
    op = build_op(kind, name, CHANNELS, BUILT)
    assert [tuple(p.shape) for p in op.parameters()] == [(1, 1, *k) for k in SHAPES[kind, name]]


@pytest.mark.parametrize(
    ("name", "channels", "hidden"),
    [
        *[("fc", 1, 1), ("fc", 15, 1), ("fc", 40, 2), ("fc", 64, 4)],
        *[("fc_min8", 1, 8), ("fc_min8", 40, 8), ("fc_min8", 160, 10)],
    ],
)
def test_fc_hidden_width(name: str, channels: int, hidden: int) -> None:
    op = build_op("channel_excite", name, channels, BUILT)
    assert [tuple(p.shape) for p in op.parameters()] == [
        (hidden, channels, 1, 1),
        (channels, hidden, 1, 1),
    ]


@pytest.mark.parametrize("channels", [8, 64, 256])
def test_fc_min8_has_the_hidden_channels_of_se_in_timm(channels: int) -> None:
    op = build_op("channel_excite", "fc_min8", channels, BUILT)
    assert op.reduce.weight.shape == SEModule(channels).fc1.weight.shape


def test_fc_of_different_widths_in_one_set() -> None:
    ops = [random_op("channel_excite", name) for name in ("fc", "fc_min8", "fc")]
    z = random_input("channel_excite", BUILT)
    expected = [
        fc(z.numpy(), {k: v.numpy() for k, v in op.state_dict().items()}, True) for op in ops
    ]
    found = type(ops[0]).together(ops, z).detach().numpy()
    np.testing.assert_allclose(found, np.stack(expected, 1)[..., 0, 0], rtol=1e-12)


@pytest.mark.parametrize("kind", ["channel_squeeze", "spatial_squeeze"])
def test_batch_norm_of_cov_has_no_parameters_without_affine(kind: str) -> None:
    names = [n for n, _ in build_op(kind, "cov", 8, BUILT, affine=False).named_parameters()]
    assert names == ["second_order.rows.weight", "second_order.mix.weight"]


@pytest.mark.parametrize("name", ["gap_gmp", "gap_std", "gap_skew"])
@pytest.mark.parametrize("kind", ["channel_squeeze", "spatial_squeeze"])
def test_mixing_starts_at_one_half(kind: str, name: str) -> None:
    (weight,) = build_op(kind, name, 8, BUILT).parameters()
    assert weight.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("kind", ["channel_excite", "spatial_excite"])
def test_affine_starts_as_a_plain_sigmoid(kind: str) -> None:
    x = random_input(kind, (9, 4))
    y = build_op(kind, "affine", CHANNELS, BUILT, dtype=torch.float64)(x)
    np.testing.assert_allclose(y.detach(), expit(x.numpy()), rtol=1e-12)


def test_published_l2norm_hardly_depends_on_its_input_and_ours_does() -> None:
    x = random_input("channel_squeeze", BUILT)
    other = torch.rand_like(x) * 50
    published = build_op("channel_squeeze", "l2norm_in", CHANNELS, BUILT, dtype=torch.float64)
    constant = np.full((3, CHANNELS, 1, 1), np.sqrt(np.prod(BUILT)))
    for image in (x, 100 * x, other):
        np.testing.assert_allclose(published(image).detach(), constant, rtol=1e-4)
    ours = build_op("channel_squeeze", "l2norm", CHANNELS, BUILT)
    np.testing.assert_allclose(ours(100 * x), 100 * ours(x), rtol=1e-12)


@pytest.mark.parametrize("size", [(7, 5), (14, 10), (3, 2), (1, 1), (8, 3)], ids=str)
def test_grid_is_resized_between_pixel_centres(size: tuple[int, int]) -> None:
    grid = torch.randn(BUILT, dtype=torch.float64)
    resized = resize_grid(grid, size)
    np.testing.assert_allclose(resized, bilinear(grid.numpy(), size), rtol=1e-12, atol=1e-14)
    if size == BUILT:
        assert torch.equal(resized, grid)
