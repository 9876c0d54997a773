import copy
import io
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.backbones import build_backbone
from search_spaces.block import SASE
from search_spaces.errors import UserError
from search_spaces.genotype import EDGES, PUBLISHED, Genotype
from search_spaces.ops.kernels.mode import fused
from search_spaces.space import SearchSpace

SPACE = SearchSpace.load("sase")
CHOICES = [variable.choices for variable in SPACE.variables]
# Seven genotypes in which each edge takes each of its seven operations once.
COVER = [
    str(Genotype(tuple(ops[(i + shift) % 7] for shift, ops in enumerate(CHOICES))))
    for i in range(7)
]
SHAPES = [(2, 6, 8, 8), (1, 6, 7, 5), (3, 16, 1, 1), (1, 1, 1, 1), (1, 33, 3, 11), (2, 4, 1, 9)]


def randomised(block: nn.Module, seed: int = 0) -> nn.Module:
    """Move every parameter and running statistic off its initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter)
        for name, buffer in block.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer += torch.rand(buffer.shape, generator=generator).to(buffer)
    return block


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=[nullcontext, fused], ids=["plain", "fused"])
def _mode(request):
    with request.param():
        yield


IN_BOTH_MODES = pytest.mark.usefixtures("_mode")


def test_the_cover_covers():
    for place, choices in enumerate(CHOICES):
        assert {Genotype.parse(text).ops[place] for text in COVER} == set(choices)


# The graph, written out for single genotypes


def joined(p: dict[str, Tensor], refined: Tensor, plain: Tensor, training: bool) -> Tensor:
    w = p["join.conv.weight"].flatten()
    s = w[0] * refined + w[1] * plain
    mean = s.mean() if training else p["join.norm.running_mean"]
    var = s.var(unbiased=False) if training else p["join.norm.running_var"]
    s = (s - mean) / torch.sqrt(var + 1e-5)
    return F.relu(s * p["join.norm.weight"] + p["join.norm.bias"])


def published(x: Tensor, p: dict[str, Tensor], training: bool) -> Tensor:
    w1, w2 = p["edges.channel_squeeze.weight"]
    z = F.relu(w1 * F.adaptive_avg_pool2d(x, 1) + w2 * F.adaptive_max_pool2d(x, 1))
    g_c = F.conv2d(
        F.relu(F.conv2d(z, p["edges.channel_excite.reduce.weight"])),
        p["edges.channel_excite.expand.weight"],
    )
    a, b = p["edges.refine_excite.scale.weight"], p["edges.refine_excite.scale.bias"]
    u = torch.sigmoid(a * z + b) * x
    s_u = (u**4).sum(1, keepdim=True) ** 0.25
    s_x = x.mean(1, keepdim=True)
    s = joined(p, s_u, s_x, training)
    s = F.conv2d(s, p["edges.spatial_excite.convs.0.weight"], padding=1)
    g_s = torch.sigmoid(F.conv2d(F.relu(s), p["edges.spatial_excite.convs.1.weight"], padding=1))
    return x + x * (g_c + g_s) / 2


def conv1d(z: Tensor, weight: Tensor) -> Tensor:
    kernel = weight.reshape(1, 1, -1)
    flat = F.conv1d(z.reshape(len(z), 1, -1), kernel, padding=kernel.shape[2] // 2)
    return flat.reshape(z.shape)


def all_convolutions(x: Tensor, p: dict[str, Tensor], training: bool) -> Tensor:
    """l2norm-conv3_x2-conv5-gap_std-gap_gmp-sep5."""
    z = x.square().mean((2, 3), keepdim=True).sqrt()
    g_c = conv1d(z, p["edges.channel_excite.convs.0.weight"])
    g_c = torch.sigmoid(conv1d(F.relu(g_c), p["edges.channel_excite.convs.1.weight"]))
    u = torch.sigmoid(conv1d(z, p["edges.refine_excite.convs.0.weight"])) * x
    w1, w2 = p["edges.refined_squeeze.weight"]
    s_u = F.relu(w1 * u.mean(1, keepdim=True) + w2 * u.std(1, keepdim=True))
    w1, w2 = p["edges.spatial_squeeze.weight"]
    s_x = F.relu(w1 * x.mean(1, keepdim=True) + w2 * x.max(1, keepdim=True).values)
    s = joined(p, s_u, s_x, training)
    s = F.conv2d(s, p["edges.spatial_excite.convs.0.weight"], padding=(0, 2))
    g_s = torch.sigmoid(F.conv2d(s, p["edges.spatial_excite.convs.1.weight"], padding=(2, 0)))
    return x + x * (g_c + g_s) / 2


def asymmetric(x: Tensor, p: dict[str, Tensor], training: bool) -> Tensor:
    """gap-affine-fc-gap-gap_skew-affine: an exchange of any two edges would show."""
    z = x.mean((2, 3), keepdim=True)
    a, b = p["edges.channel_excite.scale.weight"], p["edges.channel_excite.scale.bias"]
    g_c = torch.sigmoid(a * z + b)
    m = F.relu(F.conv2d(z, p["edges.refine_excite.reduce.weight"]))
    u = F.conv2d(m, p["edges.refine_excite.expand.weight"]) * x
    s_u = u.mean(1, keepdim=True)
    w1, w2 = p["edges.spatial_squeeze.weight"]
    mean = x.mean(1, keepdim=True)
    s_x = F.relu(w1 * mean + w2 * ((x - mean) ** 3).mean(1, keepdim=True))
    s = joined(p, s_u, s_x, training)
    a, b = p["edges.spatial_excite.scale.weight"], p["edges.spatial_excite.scale.bias"]
    return x + x * (g_c + torch.sigmoid(a * s + b)) / 2


REFERENCES = {
    str(PUBLISHED): published,
    "l2norm-conv3_x2-conv5-gap_std-gap_gmp-sep5": all_convolutions,
    "gap-affine-fc-gap-gap_skew-affine": asymmetric,
}


@IN_BOTH_MODES
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("genotype", "reference"), REFERENCES.items(), ids=list(REFERENCES))
def test_is_the_graph(
    genotype: str, reference: Callable[[Tensor, dict[str, Tensor], bool], Tensor], training: bool
):
    block = SASE(20, genotype, size=(7, 5), dtype=torch.float64)
    randomised(block).train(training)
    parameters = dict(copy.deepcopy(block).named_parameters())
    buffers = {k: v.clone() for k, v in block.named_buffers()}
    x = randn(3, 20, 7, 5, dtype=torch.float64).requires_grad_()
    expected = reference(x, {**parameters, **buffers}, training)
    actual = block(x)
    torch.testing.assert_close(actual, expected)
    assert (actual - x).abs().max() > 0.1  # the gates are open

    direction = randn(*x.shape, dtype=torch.float64, seed=2)
    names = list(parameters)
    wanted = torch.autograd.grad((expected * direction).sum(), [x, *parameters.values()])
    own = dict(block.named_parameters())
    given = torch.autograd.grad((actual * direction).sum(), [x, *(own[n] for n in names)])
    for name, a, b in zip(["x", *names], given, wanted, strict=True):
        torch.testing.assert_close(a, b, msg=lambda m, name=name: f"{name}: {m}")


def test_published_is_the_default_and_its_parameters_are_these():
    block = SASE(64)
    assert block.genotype == PUBLISHED
    assert str(PUBLISHED) in repr(block)
    expected = 2 + 2 * 64 * 4 + 2 * 64 + 2 * 9 + (2 + 2)  # gap_gmp, fc, affine, conv3x3_x2, join
    assert sum(p.numel() for p in block.parameters()) == expected
    without = SASE(64, affine=False)
    assert sum(p.numel() for p in without.parameters()) == expected - 2


# Every operation on every edge


@IN_BOTH_MODES
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("genotype", COVER)
def test_value_and_gradients_are_finite(genotype: str, shape: tuple[int, ...], training: bool):
    block = SASE(shape[1], genotype).train(training)
    for scale in (1.0, 0.0):
        x = (scale * randn(*shape)).requires_grad_()
        y = block(x)
        assert y.shape == x.shape
        assert y.dtype == x.dtype
        y.square().sum().backward()
        tensors = {"y": y, "x": x.grad, **{n: p.grad for n, p in block.named_parameters()}}
        for name, tensor in tensors.items():
            assert tensor is not None, name
            assert tensor.isfinite().all(), name


@IN_BOTH_MODES
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("genotype", COVER)
def test_autocast_leaves_the_gates_in_full_precision(
    genotype: str, dtype: torch.dtype, training: bool
):
    block = randomised(SASE(6, genotype)).train(training)
    x = (20 * randn(2, 6, 9, 5)).to(dtype)  # 20^4 is more than half precision holds
    reference = copy.deepcopy(block)(x.float())
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype):
        y = block(leaf)
    assert y.dtype == dtype
    # x and x * gate are rounded apart, and may cancel.
    rounding = torch.finfo(dtype).eps * (2 * x.float().abs() + reference.abs())
    assert ((y.float() - reference).abs() <= 2 * rounding).all()
    y.float().square().mean().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


@IN_BOTH_MODES
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("genotype", COVER)
def test_converted_to_half_precision(genotype: str, dtype: torch.dtype, training: bool):
    block = randomised(SASE(6, genotype)).to(dtype).train(training)
    reference = copy.deepcopy(block).float()
    x = randn(2, 6, 9, 5).to(dtype)
    y = block(x)
    assert y.dtype == dtype
    rough = {torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]
    torch.testing.assert_close(y.float(), reference(x.float()), rtol=rough, atol=rough)
    y.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


@IN_BOTH_MODES
@pytest.mark.parametrize("genotype", COVER)
def test_half_precision_does_not_overflow_on_large_features(genotype: str):
    block = randomised(SASE(6, genotype)).half().eval()
    reference = copy.deepcopy(block).float()
    x = (300 * randn(2, 6, 9, 5)).half()  # 300^2 is more than half precision holds
    torch.testing.assert_close(block(x).float(), reference(x.float()), rtol=0.01, atol=0.01)


@IN_BOTH_MODES
@pytest.mark.parametrize("genotype", COVER)
def test_float64_is_computed_in_float64(genotype: str):
    block = randomised(SASE(6, genotype)).eval()
    x = randn(2, 6, 9, 5, dtype=torch.float64)
    reference = copy.deepcopy(block).double()(x)
    torch.testing.assert_close(block(x), reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("genotype", COVER)
def test_copies_are_equal_and_independent(genotype: str):
    block = randomised(SASE(6, genotype, size=(7, 5))).eval()
    x = randn(2, 6, 7, 5)
    expected = block(x)
    loaded = SASE(6, genotype, size=(7, 5)).eval()
    loaded.load_state_dict(block.state_dict())
    file = io.BytesIO()
    torch.save(block.state_dict(), file)
    file.seek(0)
    from_file = SASE(6, genotype, size=(7, 5)).eval()
    from_file.load_state_dict(torch.load(file, weights_only=True))
    for twin in (loaded, from_file, copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(twin(x), expected)
        assert twin.genotype == block.genotype
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        assert torch.equal(block(x), expected)


@IN_BOTH_MODES
@pytest.mark.parametrize("genotype", COVER)
def test_channels_last_gives_the_same(genotype: str):
    block = randomised(SASE(6, genotype)).eval()
    x = randn(2, 6, 9, 5)
    y = block(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, block(x))


@pytest.mark.parametrize("genotype", COVER)
def test_meta_device(genotype: str):
    block = SASE(6, genotype, device="meta", dtype=torch.bfloat16)
    assert all(t.device.type == "meta" for t in (*block.parameters(), *block.buffers()))
    assert {p.dtype for p in block.parameters()} <= {torch.bfloat16}
    assert block(torch.empty(2, 6, 9, 5, device="meta")).shape == (2, 6, 9, 5)
    block.to_empty(device="cpu")
    block.load_state_dict(SASE(6, genotype).state_dict())
    assert block.eval()(randn(2, 6, 9, 5)).isfinite().all()


def test_gradient_reaches_every_parameter_of_the_published_block():
    torch.manual_seed(0)
    # `fc` has C / 16 hidden units: the ReLU of a few may be dead for all inputs, as in SE.
    block = SASE(256)
    block(randn(4, 256, 4, 4)).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_channels_and_samples_do_not_mix_in_the_wrong_place():
    block = randomised(SASE(6)).eval()
    x = randn(4, 6, 5, 5)
    torch.testing.assert_close(block(x)[2:3], block(x[2:3]))
    order = torch.randperm(4)
    torch.testing.assert_close(block(x[order]), block(x)[order])


# Tracing


@pytest.fixture
def _compiler():
    """Torch counts compilations of one function over the whole process, and stops after eight."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("genotype", COVER)
def test_exports_for_any_batch_and_map_size(genotype: str):
    block = randomised(SASE(6, genotype, size=(7, 5))).eval()
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    exported = torch.export.export(block, (randn(2, 6, 7, 5),), dynamic_shapes=(dynamic,)).module()
    for shape in ((2, 6, 7, 5), (3, 6, 11, 6)):
        x = randn(*shape)
        torch.testing.assert_close(exported(x), block(x))


@pytest.mark.slow
@pytest.mark.usefixtures("_compiler")
def test_compiles_to_one_graph():
    block = randomised(SASE(6)).eval()
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    x = randn(2, 6, 7, 5)
    torch.testing.assert_close(compiled(x), block(x))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(x), block(x))


@pytest.mark.slow
@pytest.mark.usefixtures("_compiler")
@pytest.mark.parametrize("genotype", COVER)
def test_every_operation_compiles_to_one_graph(genotype: str):
    block = randomised(SASE(6, genotype))
    twin = copy.deepcopy(block)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    x = randn(2, 6, 7, 5)
    expected, actual = block(x), compiled(x)
    torch.testing.assert_close(actual, expected)
    expected.square().sum().backward()
    actual.square().sum().backward()
    for ours, theirs in zip(twin.parameters(), block.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("_compiler")
def test_compiles_with_inductor():
    block = randomised(SASE(6)).eval()
    x = randn(2, 6, 7, 5)
    compiled = torch.compile(block, fullgraph=True)
    torch.testing.assert_close(compiled(x), block(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_resnet_20_exports():
    network = build_backbone(
        "resnet20",
        num_classes=10,
        width=4,
        attention=lambda channels, size, stage: SASE(channels, size=size),
    ).eval()
    images = randn(2, 3, 16, 16)
    exported = torch.export.export(network, (images,)).module()
    torch.testing.assert_close(exported(images), network(images))


# As a part of timm's networks


@pytest.mark.parametrize("name", ["resnet18", "resnet26"])
def test_attn_layer_of_timm(name: str):
    genotype = Genotype.parse("gap-conv3-affine-gap-gap_std-sep3")
    network = timm.create_model(
        name, num_classes=5, block_args={"attn_layer": partial(SASE, genotype=genotype)}
    )
    blocks = [m for m in network.modules() if isinstance(m, SASE)]
    assert len(blocks) == 8
    assert {block.genotype for block in blocks} == {genotype}
    logits = network(randn(2, 3, 64, 64))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_se_layer_of_timm_and_its_act_layer():
    network = timm.create_model("efficientnet_b0", num_classes=5, se_layer=SASE).eval()
    assert sum(isinstance(m, SASE) for m in network.modules()) == 16
    assert network(randn(1, 3, 64, 64)).shape == (1, 5)
    assert SASE(8, act_layer=nn.SiLU)(randn(2, 8, 3, 3)).shape == (2, 8, 3, 3)


def test_device_and_dtype_of_timm():
    network = timm.create_model(
        "resnet18", block_args={"attn_layer": SASE}, device="meta", dtype=torch.bfloat16
    )
    parameters = [p for m in network.modules() if isinstance(m, SASE) for p in m.parameters()]
    assert parameters
    assert {(p.device.type, p.dtype) for p in parameters} == {("meta", torch.bfloat16)}


# Wrong genotypes


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        ("gap-fc", "expected 6 operations"),
        ("gap_gpm-fc-affine-pnorm-gap-sep3", "'channel_squeeze' 'gap_gpm': did you mean 'gap_gmp'"),
        ("gap-gap-affine-pnorm-gap-sep3", "unknown operation of kind 'channel_excite' 'gap'"),
        (f"{PUBLISHED}+{PUBLISHED}", "has 2 stages: ask for one of them"),
    ],
)
def test_a_wrong_genotype_is_told(genotype: str, message: str):
    with pytest.raises(UserError, match=message):
        SASE(8, genotype)


def test_edges_are_in_order():
    assert tuple(SASE(8).edges) == EDGES
