"""Weights of another image size, of a host without attention, and from training scripts."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import timm
import torch

from search_spaces.block import SASE
from search_spaces.network import NetworkSpec
from tests.search_spaces.test_composes import CHANNELS, GENOTYPES, for_each_genotype, maps


@for_each_genotype
def test_parameters_of_another_map_size(genotype: str) -> None:
    trained = SASE(CHANNELS, genotype, size=(6, 4)).eval()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    larger = SASE(CHANNELS, genotype, size=(12, 8)).eval()
    larger.load_state_dict(trained.state_dict())
    x = maps((2, CHANNELS, 12, 8))
    torch.testing.assert_close(larger(x), trained(x))


@pytest.mark.parametrize("host", ["resnet20", "resnet18", "convnext_tiny", "timm:resnet18"])
def test_weights_trained_at_another_image_size(host: str) -> None:
    at = [NetworkSpec(host, 4, 3, (side, side)).with_genotype(GENOTYPES[2]) for side in (64, 96)]
    at[1].load_state_dict(at[0].state_dict())
    images = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(at[1].eval()(images), at[0].eval()(images))


def test_weights_of_a_host_without_attention() -> None:
    """As `timm.create_model(pretrained=True, block_args=...)` loads them."""
    network = timm.create_model("resnet18", num_classes=5, block_args={"attn_layer": SASE})
    plain = timm.create_model("resnet18", num_classes=5)
    before = copy.deepcopy(network.layer1[0].se.state_dict())
    with pytest.warns(UserWarning, match="weights have no attention"):
        network.load_state_dict(plain.state_dict())
    assert torch.equal(network.conv1.weight, plain.conv1.weight)
    for name, value in network.layer1[0].se.state_dict().items():
        assert torch.equal(value, before[name])
    part = network.state_dict()
    del part["layer1.0.se.join.conv.weight"]
    with pytest.raises(RuntimeError, match=r"layer1\.0\.se\.join\.conv\.weight"):
        network.load_state_dict(part)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
    ],
    ids=["parallel", "compiled", "checkpoint", "parallel checkpoint"],
)
def test_weights_files_of_training_scripts(wrap, tmp_path: Path) -> None:
    spec = NetworkSpec("resnet18", 4, 3, (32, 32))
    plain = spec.build(seed=1)
    torch.save(wrap(plain.state_dict()), tmp_path / "weights.pt")
    options = {"weights": str(tmp_path / "weights.pt")}
    loaded = NetworkSpec("resnet18", 4, 3, (32, 32), options).with_genotype(GENOTYPES[0])
    own = loaded.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(own[name], value), name
