"""The block in networks of others: fine-tuned, exported, pruned, quantised, converted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import torchvision
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torchvision.ops import SqueezeExcitation

from search_spaces.block import SASE

pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("ignore")]
GENOTYPE = "gap_gmp-fc-affine-cov-gap_skew-conv3x3_x2"
CLASSES = 5


def block(channels: int, **_: object) -> SASE:
    return SASE(channels, GENOTYPE)


def in_place_of_se(network: nn.Module) -> nn.Module:
    """Put a block where a torchvision network has squeeze-and-excitation."""
    for name, module in list(network.named_modules()):
        if isinstance(module, SqueezeExcitation):
            network.set_submodule(name, block(module.fc1.in_channels))
    return network


def after(network: nn.Module, channels: dict[str, int]) -> nn.Module:
    """Put a block after each of the named parts."""
    for name, count in channels.items():
        network.set_submodule(name, nn.Sequential(network.get_submodule(name), block(count)))
    return network


def segmentation() -> nn.Module:
    network = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=CLASSES
    )

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = in_place_of_se(network)

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x)["out"].mean((2, 3))

    return Pooled()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v3": lambda: in_place_of_se(
        torchvision.models.mobilenet_v3_small(num_classes=CLASSES)
    ),
    "regnet_y": lambda: in_place_of_se(torchvision.models.regnet_y_400mf(num_classes=CLASSES)),
    "densenet": lambda: after(
        torchvision.models.densenet121(num_classes=CLASSES),
        {"features.transition1": 128, "features.transition2": 256},
    ),
    "efficientnet": lambda: timm.create_model(
        "efficientnet_b0", num_classes=CLASSES, se_layer=block
    ),
    "convnext": lambda: after(
        timm.create_model("convnext_atto", num_classes=CLASSES),
        {f"stages.{i}": c for i, c in enumerate((40, 80, 160, 320))},
    ),
    "lraspp": segmentation,
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    built = NETWORKS[request.param]()
    assert any(isinstance(module, SASE) for module in built.modules())
    # Statistics of its own: with initial ones, a gate without a bound may overflow.
    with torch.no_grad():
        for _ in range(30):
            built.train()(torch.randn(8, 3, 64, 64))
    return built


@pytest.fixture
def images() -> Tensor:
    return torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def step(network: nn.Module, images: Tensor, optimizer: torch.optim.Optimizer) -> float:
    optimizer.zero_grad()
    loss = F.cross_entropy(network(images), torch.arange(len(images)) % CLASSES)
    loss.backward()
    optimizer.step()
    return loss.item()


def fine_tuned(network: nn.Module, images: Tensor) -> list[float]:
    network.train()
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 1e-3)
    return [step(network, images, optimizer) for _ in range(8)]


def test_it_fine_tunes(network, images):
    blocks = [m for m in network.modules() if isinstance(m, SASE)]
    before = [p.detach().clone() for block in blocks for p in block.parameters()]
    losses = fine_tuned(network, images)
    assert losses[-1] < losses[0] - 0.1
    after = [p for block in blocks for p in block.parameters()]
    moved = [not torch.equal(p, b) for p, b in zip(after, before, strict=True)]
    assert sum(moved) > 0.9 * len(moved)  # the bias of a join may be cut by its ReLU


def test_it_is_exported_to_onnx(network, images, tmp_path: Path):
    network.eval()
    path = tmp_path / "network.onnx"
    batch = torch.export.Dim("batch", min=2, max=64)
    torch.onnx.export(
        network, (images,), path, dynamo=True, dynamic_shapes=({0: batch},), verbose=False
    )
    session = onnxruntime.InferenceSession(path)
    for size in (8, 3):
        (found,) = session.run(None, {session.get_inputs()[0].name: images[:size].numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, network(images[:size]), rtol=1e-3, atol=1e-4)


def test_it_is_pruned_and_trains_on(network, images):
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    pruned = [(layer, "weight") for layer in layers]
    prune.global_unstructured(pruned, prune.L1Unstructured, amount=0.3)
    fine_tuned(network, images)
    for layer, name in pruned:
        prune.remove(layer, name)
    zeros = sum(int((layer.weight == 0).sum()) for layer in layers)
    assert zeros >= 0.29 * sum(layer.weight.numel() for layer in layers)
    fine_tuned(network, images)


def test_it_is_quantised(network, images):
    network.eval()
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(network), {nn.Linear})
    with torch.no_grad():
        expected = network(images)
        error = (quantised(images) - expected).abs().max()
    assert error < 0.05 * expected.abs().max() + 0.05


def test_it_is_converted(network, images, tmp_path: Path):
    network.eval()
    with torch.no_grad():
        expected = network(images)
        traced = torch.jit.trace(network, images, check_trace=False)
        torch.testing.assert_close(traced(images), expected, rtol=1e-3, atol=1e-4)
        # Torch's own conversion drops the activation within timm's batch norms.
        synced = convert_sync_batchnorm(copy.deepcopy(network))
        torch.testing.assert_close(synced(images), expected, rtol=1e-3, atol=1e-4)
        channels_last = network.to(memory_format=torch.channels_last)
        torch.testing.assert_close(channels_last(images), expected, rtol=1e-3, atol=1e-4)
        half = copy.deepcopy(network).to(torch.bfloat16)(images.bfloat16())
        assert half.dtype == torch.bfloat16
        assert half.isfinite().all()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "w.pt")
    fresh = copy.deepcopy(network)
    for parameter in fresh.parameters():
        nn.init.zeros_(parameter)
    fresh.load_state_dict(torch.load(tmp_path / "w.pt")["state_dict"])
    with torch.no_grad():
        torch.testing.assert_close(fresh(images), expected, rtol=1e-3, atol=1e-4)
