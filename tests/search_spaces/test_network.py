import copy
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search_spaces.block import SASE
from search_spaces.errors import UserError
from search_spaces.genotype import PUBLISHED, Genotype
from search_spaces.mixture import Mixture
from search_spaces.network import NetworkSpec, Supernet
from search_spaces.ops.kernels.mode import fused
from search_spaces.space import SearchSpace
from search_spaces.super_block import SuperSASE

SPACE = SearchSpace.load("sase")
TINY = SearchSpace.load("sase_tiny")
CIFAR = NetworkSpec("resnet20", 5, 1, (12, 10), {"width": 4})
SMALL = NetworkSpec("resnet8", 5, 1, (12, 10), {"width": 4})
RESNET = NetworkSpec("resnet18", 5, 3, (32, 32))
CONVNEXT = NetworkSpec("convnext_atto", 5, 3, (16, 16), {"patch": 1})
HOSTS = {"resnet20": CIFAR, "resnet18": RESNET, "convnext_atto": CONVNEXT}
STAGES = {"resnet20": 3, "resnet18": 4, "convnext_atto": 4}
BLOCKS = {"resnet20": 9, "resnet18": 8, "convnext_atto": 12}
OTHER = SPACE.parse("cov-conv3-conv5-l2norm-gap_std-affine")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def images(spec: NetworkSpec, count: int = 3) -> Tensor:
    shape = (count, spec.in_channels, *spec.input_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def disturbed(network: nn.Module) -> nn.Module:
    """Move parameters and running statistics off their initial values."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += 0.1 * noise * parameter.abs() + 0.01 * noise
        for name, buffer in network.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer += 0.1 * torch.rand(buffer.shape, generator=generator)
    return network


def alive(logits: Tensor) -> bool:
    """Neither the same for every image, as after a dead ReLU, nor near overflow."""
    return bool((logits.std(0) > 1e-3).all() and logits.abs().max() < 1e6)


def host_state(network: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in network.state_dict().items() if ".attention." not in k}


def block_state(network: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in network.state_dict().items() if ".attention." in k}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def blocks(network: nn.Module) -> list[SASE]:
    return [m for m in network.modules() if isinstance(m, SASE)]


# Discrete networks


@pytest.mark.parametrize("name", HOSTS)
def test_a_network_of_a_genotype(name: str):
    spec = HOSTS[name]
    network = spec.with_genotype(str(PUBLISHED))
    assert [block.genotype for block in blocks(network)] == [PUBLISHED] * BLOCKS[name]
    logits = network(images(spec))
    assert logits.shape == (3, 5)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("name", HOSTS)
def test_a_seed_gives_the_same_host_whatever_the_attention(name: str):
    spec = HOSTS[name]
    networks = [
        spec.build(seed=3),
        spec.with_genotype(PUBLISHED, seed=3),
        spec.with_genotype(OTHER, seed=3),
        spec.with_baseline("se", seed=3),
        spec.with_baseline("none", seed=3),
        Supernet(spec, TINY, seed=3).host,
    ]
    first, *others = [host_state(network) for network in networks]
    assert first
    assert all(same(first, other) for other in others)
    assert not same(first, host_state(spec.with_genotype(PUBLISHED, seed=4)))


def test_a_seed_gives_the_same_blocks_and_each_block_its_own():
    network = CIFAR.with_genotype(PUBLISHED, seed=3)
    assert same(network.state_dict(), CIFAR.with_genotype(PUBLISHED, seed=3).state_dict())
    assert not same(block_state(network), block_state(CIFAR.with_genotype(PUBLISHED, seed=4)))
    weights = [block.edges["spatial_excite"].convs[0].weight for block in blocks(network)]
    assert len({tuple(w.flatten().tolist()) for w in weights}) == 9
    # The draws of a block do not depend on what the blocks before it drew.
    mixed = Genotype.parse(f"{OTHER}+{OTHER}+{PUBLISHED}")
    last = CIFAR.with_genotype(mixed, seed=3)
    assert same(blocks(last)[-1].state_dict(), blocks(network)[-1].state_dict())


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    SMALL.build(seed=1)
    SMALL.with_genotype(PUBLISHED, seed=1)
    supernet = Supernet(SMALL, TINY, seed=1)
    supernet.extract(TINY[0])
    supernet.extract(TINY[0], inherit=False, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.initial_seed() == 11


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_building_leaves_the_generator_of_the_gpu_alone():
    torch.cuda.manual_seed(11)
    before = torch.cuda.get_rng_state()
    SMALL.with_genotype(PUBLISHED, seed=1)
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize("name", HOSTS)
def test_the_genotype_of_each_stage_goes_there(name: str):
    spec, count = HOSTS[name], STAGES[name]
    stages = SPACE.sample_distinct(count, random.Random(0))
    network = spec.with_genotype("+".join(map(str, stages)))
    order = [block.genotype for block in blocks(network)]
    assert list(dict.fromkeys(order)) == stages  # in order, one after the other
    # A stage is where the width changes.
    width = {"resnet20": 4, "resnet18": 64, "convnext_atto": 40}[name]
    channels = [block.edges["refine_excite"] for block in blocks(spec.with_genotype(OTHER))]
    assert len(channels) == len(order)
    affine = SPACE.parse("gap-affine-affine-gap-gap-affine")
    widths = [
        len(b.edges["channel_excite"].scale.weight) for b in blocks(spec.with_genotype(affine))
    ]
    assert [stages[(w // width).bit_length() - 1] for w in widths] == order


@pytest.mark.parametrize("name", HOSTS)
def test_a_wrong_number_of_stages_is_told(name: str):
    spec, have = HOSTS[name], STAGES[name]
    for wrong in (2, have - 1, have + 1):
        genotype = Genotype.parse("+".join([str(PUBLISHED)] * wrong))
        message = rf"backbone '{name}' has {have} stage\(s\) to choose a block for, not {wrong}"
        with pytest.raises(UserError, match=message):
            spec.with_genotype(genotype)
        with pytest.raises(UserError, match=message):
            Supernet(spec, replace(TINY, stages=wrong))


def test_a_wrong_request_is_told():
    with pytest.raises(UserError, match="unknown backbone 'resnet21': did you mean 'resnet"):
        replace(CIFAR, backbone="resnet21").with_genotype(PUBLISHED)
    with pytest.raises(UserError, match="takes no option 'widht'"):
        replace(CIFAR, options={"widht": 4}).build()
    with pytest.raises(UserError, match="'gap_gpm': did you mean 'gap_gmp'"):
        CIFAR.with_genotype("gap_gpm-fc-affine-pnorm-gap-conv3x3_x2")
    with pytest.raises(UserError, match="unknown baseline 'sse': did you mean 'se'"):
        CIFAR.with_baseline("sse")


# The supernet


@pytest.mark.parametrize("name", HOSTS)
def test_a_one_hot_mixture_is_exactly_the_extracted_network(name: str):
    spec = HOSTS[name]
    supernet = disturbed(Supernet(spec, SPACE)).eval()
    x = images(spec)
    for genotype in (PUBLISHED, OTHER):
        network = supernet.extract(genotype).eval()
        assert [b.genotype for b in blocks(network)] == [genotype] * BLOCKS[name]
        with fused():
            expected = network(x)
        assert alive(expected)
        assert torch.equal(supernet(x, Mixture.of(genotype, SPACE)), expected)
        vectors = [
            torch.nn.functional.one_hot(torch.tensor(v.choices.index(op)), len(v.choices)).float()
            for v, op in zip(SPACE.variables, genotype.ops, strict=True)
        ]
        # Statistics that operations share are rounded otherwise than one operation's own.
        torch.testing.assert_close(supernet(x, Mixture(vectors)), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", HOSTS)
def test_per_stage_mixtures_go_to_their_stages(name: str):
    spec, space = HOSTS[name], replace(SPACE, stages=STAGES[name])
    supernet = disturbed(Supernet(spec, space)).eval()
    x = images(spec)
    genotype = space.sample(random.Random(2))
    network = supernet.extract(genotype).eval()
    order = list(dict.fromkeys(b.genotype for b in blocks(network)))
    assert order == [genotype.stage(i) for i in range(STAGES[name])]
    with fused():
        expected = network(x)
    assert torch.equal(supernet(x, Mixture.of(genotype, space)), expected)
    swapped = "+".join(reversed(str(genotype).split("+")))
    other = supernet(x, Mixture.of(space.parse(swapped), space))
    assert not torch.allclose(other, expected)


def test_extract_without_weights_is_a_network_of_that_seed():
    supernet = disturbed(Supernet(SMALL, TINY, seed=1))
    fresh = supernet.extract(TINY[100], inherit=False, seed=7)
    assert same(fresh.state_dict(), SMALL.with_genotype(TINY[100], seed=7).state_dict())
    inherited = supernet.extract(TINY[100])
    assert same(host_state(inherited), host_state(supernet.host))
    assert not same(host_state(fresh), host_state(inherited))
    assert not same(block_state(fresh), block_state(inherited))


def test_an_extracted_network_shares_nothing_with_the_supernet():
    supernet = Supernet(SMALL, TINY).eval()
    mixture = Mixture.of(TINY[100], TINY)
    before = supernet(images(SMALL), mixture)
    network = supernet.extract(TINY[100])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert torch.equal(supernet(images(SMALL), mixture), before)


def test_extract_keeps_the_precision_of_the_supernet():
    supernet = disturbed(Supernet(SMALL, TINY)).double().eval()
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter += 1e-12  # which single precision would lose
    network = supernet.extract(TINY[100]).eval()
    assert {p.dtype for p in network.parameters()} == {torch.float64}
    x = images(SMALL).double()
    assert alive(network(x))
    assert torch.equal(network(x), supernet(x, Mixture.of(TINY[100], TINY)))


def test_extract_refuses_a_genotype_of_another_space():
    with pytest.raises(UserError, match="unknown operation of set 'spatial_excite'"):
        Supernet(SMALL, TINY).extract(PUBLISHED)


def test_a_mixture_is_forgotten_after_the_pass():
    supernet = Supernet(SMALL, TINY)
    message = "called through the supernet"
    with pytest.raises(RuntimeError, match=message):
        supernet.host(images(SMALL))
    supernet(images(SMALL), Mixture.of(TINY[0], TINY))
    with pytest.raises(RuntimeError, match=message):
        supernet.host(images(SMALL))
    with pytest.raises(ValueError, match="zip"):
        supernet(images(SMALL), Mixture([]))
    with pytest.raises(RuntimeError, match=message):  # also after a pass that failed
        supernet.host(images(SMALL))


class Watching(SuperSASE):
    """Runs something in the middle of a pass."""

    during: Any = None

    def forward(self, x: Tensor, mixture: Any) -> Tensor:
        if self.during is not None:
            self.during()
        return super().forward(x, mixture)


def test_a_deep_copy_is_independent():
    supernet = disturbed(Supernet(SMALL, TINY, block=Watching)).eval()
    twin = copy.deepcopy(supernet)
    x = images(SMALL)
    one, two = Mixture.of(TINY[0], TINY), Mixture.of(TINY[728], TINY)
    first, second = supernet(x, one), supernet(x, two)
    assert alive(first)
    assert not torch.allclose(first, second)
    assert torch.equal(twin(x, one), first)

    # A pass of the copy in the middle of a pass of the original, with another mixture.
    inner: list[Tensor] = []
    watching = next(m for m in supernet.modules() if isinstance(m, Watching))
    watching.during = lambda: inner.append(twin(x, two))
    assert torch.equal(supernet(x, one), first)
    assert torch.equal(inner[0], second)
    watching.during = None

    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(supernet(x, one), first)


def test_gradients_reach_weights_and_mixture():
    supernet = Supernet(SMALL, TINY)
    alphas = [torch.zeros(3, requires_grad=True) for _ in TINY.variables]
    logits = supernet(images(SMALL), Mixture([a.softmax(0) for a in alphas]))
    logits.square().sum().backward()
    assert all(a.grad is not None and a.grad.abs().max() > 0 for a in alphas)
    assert all(p.grad is not None for p in supernet.parameters())


def test_state_dict_round_trip():
    supernet = disturbed(Supernet(SMALL, TINY, seed=1)).eval()
    other = Supernet(SMALL, TINY, seed=2).eval()
    other.load_state_dict(supernet.state_dict())
    mixture = Mixture([torch.full((3,), 1 / 3) for _ in TINY.variables])
    assert torch.equal(other(images(SMALL), mixture), supernet(images(SMALL), mixture))


def test_another_mixed_block_is_told_channels_space_and_size():
    told = []

    class Recording(SuperSASE):
        def __init__(self, channels: int, space: SearchSpace, *, size: tuple[int, int]) -> None:
            super().__init__(channels, space, size=size)
            told.append((channels, space.name, size))

    Supernet(SMALL, TINY, block=Recording)
    expected = [(4, (12, 10)), (8, (6, 5)), (16, (3, 3))]
    assert told == [(channels, "sase_tiny", size) for channels, size in expected]


def test_a_supernet_of_a_timm_network():
    spec = NetworkSpec("timm:resnet18", 5, 3, (32, 32))
    supernet = disturbed(Supernet(spec, TINY)).eval()
    network = supernet.extract(TINY[300]).eval()
    assert torch.equal(supernet(images(spec), Mixture.of(TINY[300], TINY)), network(images(spec)))
