"""The block is plain torch: what people do to a network with SE, they can do to one with it."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from timm.layers import convert_sync_batchnorm, create_attn, freeze_batch_norm_2d
from torch import Tensor, nn
from torch.autograd.profiler import profile
from torch.nn.utils import prune
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import FrozenBatchNorm2d

from search_spaces.block import SASE
from search_spaces.network import NetworkSpec
from search_spaces.ops.kernels.mode import fused
from search_spaces.space import SearchSpace

SPACE = SearchSpace.load("sase")
GENOTYPES = [
    "gap_gmp-fc-affine-pnorm-gap-conv3x3_x2",
    "cov-conv3-fc-cov-gap_gmp-sep3",
    "l2norm-affine-conv3_x2-l2norm-gap_std-affine",
    "gap_skew-conv5-conv7-gap_skew-pnorm-sep5",
]
CHANNELS = 8
SHAPES = [(2, CHANNELS, 8, 8), (3, CHANNELS, 12, 7)]
for_each_genotype = pytest.mark.parametrize("genotype", GENOTYPES)


def built(genotype: str, *, training: bool = False) -> SASE:
    """Return a block whose parameters and statistics are off their initial values."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = SASE(CHANNELS, genotype).train(training)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        for name, buffer in block.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer += torch.rand(buffer.shape, generator=generator)
    return block


def maps(shape: tuple[int, ...] = SHAPES[0]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def agree_at_all_sizes(one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]) -> None:
    for shape in SHAPES:
        torch.testing.assert_close(one(maps(shape)), other(maps(shape)), rtol=1e-4, atol=1e-5)


any_genotype = given(st.integers(0, SPACE.size - 1).map(lambda index: str(SPACE[index])))
a_few = settings(
    max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


# Traces and exports


@pytest.mark.slow
@for_each_genotype
def test_onnx_of_any_size(genotype: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    block = built(genotype)
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    file = str(tmp_path / "block.onnx")
    torch.onnx.export(block, (maps(),), file, dynamo=True, dynamic_shapes=(dynamic,), verbose=False)
    session = runtime.InferenceSession(file)
    (name,) = (entry.name for entry in session.get_inputs())
    agree_at_all_sizes(lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0]), block)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@for_each_genotype
def test_onnx_of_one_size_by_the_older_exporter(genotype: str, shape: tuple[int, ...]) -> None:
    runtime = pytest.importorskip("onnxruntime")
    block, file, x = built(genotype), io.BytesIO(), maps(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(block, (x,), file, dynamo=False)
    session = runtime.InferenceSession(file.getvalue())
    (result,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(result), block(x), rtol=1e-4, atol=1e-5)


def traced_and_saved(block: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(block, maps(), check_trace=False), file)
    file.seek(0)
    return torch.jit.load(file)


@for_each_genotype
@pytest.mark.filterwarnings("ignore")
def test_jit_traces_and_saves(genotype: str) -> None:
    block = built(genotype)
    agree_at_all_sizes(traced_and_saved(block), block)


@a_few
@any_genotype
@pytest.mark.filterwarnings("ignore")
def test_any_genotype_traces(genotype: str) -> None:
    block = built(genotype)
    agree_at_all_sizes(traced_and_saved(block), block)
    agree_at_all_sizes(torch.fx.symbolic_trace(block), block)


def test_a_fused_block_is_traced_as_a_plain_one() -> None:
    block = built(GENOTYPES[0])
    with fused():
        agree_at_all_sizes(traced_and_saved(block), block)


def test_a_graph_in_tensorboard(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_graph(built(GENOTYPES[0]), maps())
    assert b"channel_excite" in next(tmp_path.iterdir()).read_bytes()


@for_each_genotype
def test_fvcore_counts_every_part(genotype: str) -> None:
    block = built(genotype)
    counted = FlopCountAnalysis(block, maps())
    counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with profile(with_flops=True) as profiled:
        block(maps())
    expected = sum(e.flops for e in profiled.function_events if e.name == "aten::conv2d") / 2
    assert counted.by_operator()["conv"] == expected > 0  # multiply-adds
    assert not counted.uncalled_modules()
    assert not any("PythonOp" in name for name in counted.unsupported_ops())


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@for_each_genotype
def test_symbolic_trace(genotype: str, training: bool) -> None:
    block = built(genotype, training=training)
    twin = copy.deepcopy(block)
    symbolic = torch.fx.symbolic_trace(twin)
    agree_at_all_sizes(symbolic, block)
    for name, buffer in block.named_buffers():  # of batch norms
        torch.testing.assert_close(symbolic.get_buffer(name), buffer)


def test_torchvisions_feature_extractor() -> None:
    network = NetworkSpec("resnet18", 10, 3, (64, 64)).with_genotype(GENOTYPES[1])
    extractor = create_feature_extractor(network, ["layer2", "layer4.1.attention"]).eval()
    images = torch.randn(2, 3, 64, 64)
    found: list[Tensor] = []
    network.eval().layer4[1].attention.register_forward_hook(lambda *a: found.append(a[2]))
    network(images)
    torch.testing.assert_close(extractor(images)["layer4.1.attention"], found[0])


@for_each_genotype
@pytest.mark.filterwarnings("ignore")
def test_graph_mode_quantisation(genotype: str) -> None:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_fx

    block = built(genotype)
    prepared = prepare_fx(copy.deepcopy(block), get_default_qconfig_mapping(), (maps(),))
    agree_at_all_sizes(prepared, block)


# Norms


def norms(block: nn.Module) -> list[str]:
    return [n for n, m in block.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def replaced_by(make: Callable[[int], nn.Module], block: SASE) -> nn.Module:
    for name in norms(block):
        block.set_submodule(name, make(block.get_submodule(name).num_features))
    return block


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "convert", [nn.SyncBatchNorm.convert_sync_batchnorm, convert_sync_batchnorm]
)
@for_each_genotype
def test_synchronised_batch_norms(genotype: str, convert, training: bool) -> None:
    block = built(genotype, training=training)
    synced = convert(copy.deepcopy(block))
    assert any(isinstance(m, nn.SyncBatchNorm) for m in synced.modules())
    with fused():  # which must see that the norms are others
        torch.testing.assert_close(synced(maps()), block(maps()))
    torch.testing.assert_close(synced(maps()), block(maps()))
    for name, buffer in block.named_buffers():
        torch.testing.assert_close(synced.get_buffer(name), buffer)


@for_each_genotype
def test_frozen_batch_norms(genotype: str) -> None:
    block = built(genotype)
    timms = freeze_batch_norm_2d(copy.deepcopy(block))
    torchvisions = replaced_by(FrozenBatchNorm2d, copy.deepcopy(block))
    torchvisions.load_state_dict(
        {k: v for k, v in block.state_dict().items() if "num_batches" not in k}
    )
    for frozen in (timms, torchvisions):
        assert not norms(frozen)
        frozen.train()
        torch.testing.assert_close(frozen(maps()), block(maps()))
        frozen(maps()).sum().backward()
        torch.testing.assert_close(frozen(maps()), block(maps()))  # nothing moved


@pytest.mark.parametrize(
    "make",
    [partial(nn.GroupNorm, 1), nn.InstanceNorm2d, lambda channels: nn.Identity()],
    ids=["group", "instance", "identity"],
)
@for_each_genotype
def test_other_norms(genotype: str, make) -> None:
    block = replaced_by(make, built(genotype)).train()
    y = block(maps())
    y.sum().backward()
    assert y.isfinite().all()
    torch.testing.assert_close(block(maps())[:1], block(maps()[:1]))  # none is of the batch


# Layers that others wrap


def layers(block: nn.Module) -> list[nn.Module]:
    return [m for m in block.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: prune.l1_unstructured(layer, "weight", amount=0.3),
        torch.nn.utils.weight_norm,
        torch.nn.utils.spectral_norm,
        torch.nn.utils.parametrizations.weight_norm,
    ],
    ids=["prune", "weight_norm", "spectral_norm", "parametrised"],
)
@for_each_genotype
def test_weights_that_are_computed_before_each_pass(genotype: str, change) -> None:
    block = built(genotype, training=True)
    for layer in layers(block):
        change(layer)
    for _ in range(2):  # the second time, weights of the first pass would be of a freed graph
        block(maps()).square().sum().backward()
    block.zero_grad()
    block(maps()).square().sum().backward()
    touched = [name for name, p in block.named_parameters() if p.grad is not None]
    assert set(touched) == {name for name, _ in block.named_parameters()}


class Adapter(nn.Module):
    """A low-rank adapter around a frozen layer (LoRA)."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.base = layer.requires_grad_(False)
        self.delta = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            padding=layer.padding,
            groups=layer.groups,
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.delta(x)


@for_each_genotype
def test_adapters_around_all_convolutions_learn(genotype: str) -> None:
    block = built(genotype, training=True)
    paths = [name for name, m in block.named_modules() if isinstance(m, nn.Conv2d)]
    for path in paths:
        block.set_submodule(path, Adapter(block.get_submodule(path)))
    block(maps()).square().sum().backward()
    for path in paths:
        assert block.get_submodule(path).delta.weight.grad is not None, path
        assert block.get_submodule(path).base.weight.grad is None, path


@for_each_genotype
def test_hooks_of_all_modules_are_called(genotype: str) -> None:
    block = built(genotype)
    called: set[str] = set()
    leaves = {n for n, m in block.named_modules() if not list(m.children())}
    for name in leaves:
        block.get_submodule(name).register_forward_hook(lambda *a, name=name: called.add(name))
    block(maps())
    assert called == leaves


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("aware", [False, True], ids=["static", "aware"])
@pytest.mark.parametrize("genotype", [*GENOTYPES, "timm"])
def test_eager_quantisation_around_the_block(genotype: str, aware: bool) -> None:
    """Like timm's SE, which has no quantised form in this mode either."""
    from torch.ao import quantization

    torch.manual_seed(3)  # of the two convolutions
    attention = create_attn("se", CHANNELS) if genotype == "timm" else built(genotype)
    network = nn.Sequential(
        quantization.QuantStub(),
        nn.Conv2d(3, CHANNELS, 3, padding=1),
        quantization.DeQuantStub(),
        attention,
        quantization.QuantStub(),
        nn.Conv2d(CHANNELS, 4, 1),
        quantization.DeQuantStub(),
    ).train(aware)
    make = quantization.get_default_qat_qconfig if aware else quantization.get_default_qconfig
    network.qconfig = make("x86")
    attention.qconfig = None
    prepared = (quantization.prepare_qat if aware else quantization.prepare)(network)
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    prepared(images).sum().backward()
    expected = prepared.eval()(images)
    quantised = quantization.convert(prepared)
    error = (quantised(images) - expected).abs()
    assert error.mean() < 0.02 * expected.abs().max()
    assert error.max() < 0.2 * expected.abs().max()


@pytest.mark.filterwarnings("ignore")
@for_each_genotype
def test_dynamic_quantisation(genotype: str) -> None:
    from torch.ao import quantization

    block = built(genotype)
    dynamic = quantization.quantize_dynamic(copy.deepcopy(block), {nn.Linear, nn.Conv2d})
    torch.testing.assert_close(dynamic(maps()), block(maps()))


# Precision, empty batches


@for_each_genotype
def test_a_backward_pass_inside_autocast(genotype: str) -> None:
    def gradients(inside: bool) -> dict[str, Tensor]:
        block = built(genotype, training=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = block(maps()).square().mean()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        return {name: p.grad for name, p in block.named_parameters()}

    # Torch runs matrix products of the backward pass in bfloat16 there: covariances have some.
    inside, outside = (
        torch.cat([gradient.flatten() for gradient in gradients(where).values()])
        for where in (True, False)
    )
    assert inside.dtype == torch.float32
    assert inside.isfinite().all()
    tolerance = 0.05 if "cov" in genotype else 1e-6
    assert (inside - outside).norm() <= tolerance * outside.norm()


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@for_each_genotype
def test_an_empty_batch(genotype: str, training: bool) -> None:
    block = built(genotype, training=training)
    before = {name: buffer.clone() for name, buffer in block.named_buffers()}
    x = maps()[:0].requires_grad_()
    y = block(x)
    y.sum().backward()
    assert y.shape == x.shape
    assert x.grad is not None
    assert all((p.grad == 0).all() for p in block.parameters() if p.grad is not None)
    for name, buffer in block.named_buffers():
        if "num_batches" not in name:
            assert torch.equal(buffer, before[name])
