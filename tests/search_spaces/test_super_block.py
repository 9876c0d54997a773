import copy
import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.block import SASE
from search_spaces.errors import UserError
from search_spaces.genotype import EDGES, PUBLISHED, Genotype
from search_spaces.mixture import EdgeWeights, Mixture
from search_spaces.ops.kernels.mode import fused
from search_spaces.space import OperationFile, SearchSpace
from search_spaces.super_block import SuperSASE

SPACE = SearchSpace.load("sase")
TINY = SearchSpace.load("sase_tiny")
# Each operation on each edge, then some at random.
GENOTYPES = [
    *(Genotype(tuple(v.choices[i] for v in SPACE.variables)) for i in range(7)),
    *SPACE.sample_distinct(20, random.Random(0)),
]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def super_block(channels: int = 6, space: SearchSpace = SPACE, **options: object) -> SuperSASE:
    """A supernet block with all parameters and running statistics off their initial values."""
    torch.manual_seed(0)
    block = SuperSASE(channels, space, size=(7, 5), **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in block.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        for name, buffer in block.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer += torch.rand_like(buffer)
    return block


def one_hot(genotype: Genotype, space: SearchSpace = SPACE) -> list[Tensor]:
    """Written out here, apart from `Mixture.of`."""
    weights = []
    for edge, op in genotype.edges().items():
        names = space.sets[space.edges[edge]]
        weights.append(torch.tensor([float(name == op) for name in names]))
    return weights


def softmax_weights(space: SearchSpace, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randn(len(v.choices), generator=generator, dtype=dtype).softmax(0)
        for v in space.variables
    ]


def mixtures(genotype: Genotype) -> dict[str, Mixture | list[Tensor]]:
    return {
        "vectors": one_hot(genotype),
        "mapping of Mixture.of": Mixture.of(genotype, SPACE),
        "mapping of tensors": Mixture(
            [{int(w.argmax()): torch.tensor(1.0)} for w in one_hot(genotype)]
        ),
    }


def gradients(output: Tensor, x: Tensor, named: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    values = torch.autograd.grad(
        (output * direction).sum(), [x, *named.values()], allow_unused=True
    )
    return dict(zip(["x", *named], values, strict=True))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("genotype", GENOTYPES, ids=str)
def test_one_hot_weights_are_exactly_the_discrete_block(genotype: Genotype, training: bool):
    original = super_block().double()
    for name, mixture in mixtures(genotype).items():
        block = copy.deepcopy(original).train(training)
        discrete = block.extract(genotype).train(training)
        assert type(discrete) is SASE
        assert discrete.genotype == genotype
        x = torch.randn(3, 6, 7, 5, generator=torch.Generator().manual_seed(2)).double()
        x.requires_grad_()
        with fused():
            mixed, single = block(x, mixture), discrete(x)
        # All operations of an edge share statistics, rounded otherwise than one's own.
        off = 1e-9 if name == "vectors" else 0.0

        def same(a: Tensor, b: Tensor, message: object, off: float = off) -> None:
            size = float(b.detach().abs().max())
            torch.testing.assert_close(
                a, b, rtol=off, atol=off * (size + 1e-4), msg=lambda m: f"{message}: {m}"
            )

        same(mixed, single, name)

        places = {edge: block.choices[edge].index(op) for edge, op in genotype.edges().items()}
        pairs = {}
        for key, parameter in discrete.named_parameters():
            part, edge, *rest = key.split(".")
            source = f"edges.{edge}.{places[edge]}.{'.'.join(rest)}" if part == "edges" else key
            if source in dict(block.named_parameters()):  # not the affine of a batch norm
                pairs[key] = (parameter, block.get_parameter(source))
        theirs = gradients(mixed, x, {k: b for k, (_, b) in pairs.items()})
        ours = gradients(single, x, {k: a for k, (a, _) in pairs.items()})
        for key, gradient in ours.items():
            same(theirs[key], gradient, (name, key))
        if training:  # running statistics moved alike
            for key, buffer in discrete.named_buffers():
                part, edge, *rest = key.split(".")
                source = f"edges.{edge}.{places[edge]}.{'.'.join(rest)}" if part == "edges" else key
                same(block.get_buffer(source), buffer, (name, key))


def test_a_discrete_block_of_the_supernet_shares_nothing_with_it():
    block = super_block().eval()
    x = torch.randn(2, 6, 7, 5)
    before = block(x, one_hot(PUBLISHED))
    discrete = block.extract(PUBLISHED)
    with torch.no_grad():
        for parameter in discrete.parameters():
            parameter.zero_()
    assert torch.equal(block(x, one_hot(PUBLISHED)), before)


def test_extract_without_weights_starts_fresh():
    block = super_block()
    torch.manual_seed(5)
    fresh = block.extract(PUBLISHED, inherit=False)
    torch.manual_seed(5)
    plain = SASE(6, PUBLISHED, size=(7, 5))
    for a, b in zip(fresh.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_extract_keeps_affine_parameters_dtype_and_size():
    block = super_block(affine=True).double()
    genotype = SPACE.parse("cov-fc-conv3-l2norm-cov-affine")
    discrete = block.extract(genotype)
    assert {p.dtype for p in discrete.parameters()} == {torch.float64}
    assert discrete.edges["spatial_excite"].scale.weight.shape == (7, 5)
    assert torch.equal(discrete.join.norm.weight, block.join.norm.weight)
    assert not torch.equal(discrete.join.norm.weight, torch.ones(1).double())
    x = torch.randn(2, 6, 7, 5, dtype=torch.float64)
    with fused():
        expected = discrete(x)
    assert torch.equal(block(x, Mixture.of(genotype, SPACE)), expected)


@pytest.mark.parametrize("inherit", [True, False])
def test_extract_refuses_what_is_not_in_the_space(inherit: bool):
    block = SuperSASE(6, TINY)
    with pytest.raises(UserError, match="edge 'spatial_excite' 'conv3x3_x2': did you mean 'conv3x"):
        block.extract(PUBLISHED, inherit=inherit)
    with pytest.raises(UserError, match="2 stages"):
        block.extract(Genotype.parse(f"{TINY[0]}+{TINY[1]}"), inherit=inherit)


def test_batch_norms_have_no_parameters_unless_asked():
    assert not any(".norm." in name for name, _ in SuperSASE(6, SPACE).named_parameters())
    with_affine = SuperSASE(6, SPACE, affine=True)
    assert any(".norm." in name for name, _ in with_affine.named_parameters())


def test_an_unknown_operation_of_the_space_is_told():
    sets = {**TINY.sets, "channel_squeeze": ("gap", "gap_gpm")}
    with pytest.raises(UserError, match="in space 'sase_tiny' 'gap_gpm': did you mean 'gap_gmp'"):
        SuperSASE(6, replace(TINY, sets=sets))


def test_operations_of_a_users_file_are_loaded():
    text = (
        "from search_spaces.ops import register_op\n"
        "@register_op('spatial_excite', 'super_test_half')\n"
        "def super_test_half(s):\n    return s * 0 + 0.5\n"
    )
    files = (OperationFile("/nowhere/super_test.py", text),)
    sets = {**TINY.sets, "spatial_excite": ("super_test_half", "conv3x3")}
    space = replace(TINY, sets=sets, operation_files=files)
    genotype = space.parse("gap-affine-affine-gap-gap-super_test_half")
    block = SuperSASE(2, space)
    x = torch.randn(2, 2, 3, 3)
    z = x.mean((2, 3), keepdim=True)  # `affine` begins as a plain sigmoid
    expected = x + x * (z.sigmoid() + 0.5) / 2
    torch.testing.assert_close(block(x, Mixture.of(genotype, space)), expected)


# Mixing


def manual(
    block: SuperSASE, x: Tensor, weights: list[Tensor], joins: tuple | None = None
) -> Tensor:
    def edge(name: str, value: Tensor) -> Tensor:
        total = torch.zeros(())
        for weight, op in zip(weights[EDGES.index(name)], block.edges[name], strict=True):
            total = total + weight * op(value)
        return total

    (a, b), (c, d) = joins or ((0.5, 0.5), (0.5, 0.5))
    z = edge("channel_squeeze", x)
    g_c = edge("channel_excite", z)
    u = edge("refine_excite", z) * x
    s_u, s_x = edge("refined_squeeze", u), edge("spatial_squeeze", x)
    w = block.join.conv.weight.flatten()
    s = 2 * a * w[0] * s_u + 2 * b * w[1] * s_x
    mean, var = block.join.norm.running_mean, block.join.norm.running_var
    s = torch.relu((s - mean) / torch.sqrt(var + 1e-5))
    return x + x * (c * g_c + d * edge("spatial_excite", s))


@pytest.mark.parametrize(
    "joins", [None, ((0.3, 0.7), (0.9, 0.1))], ids=["without joins", "with joins"]
)
def test_an_edge_is_the_weighted_sum_of_its_operations(joins: tuple | None):
    block = super_block().double().eval()
    weights = softmax_weights(SPACE, torch.float64)
    x = torch.randn(2, 6, 7, 5, dtype=torch.float64)
    tensors = joins and tuple(torch.tensor(pair, dtype=torch.float64) for pair in joins)
    actual = block(x, Mixture(weights, tensors))
    torch.testing.assert_close(actual, manual(block, x, weights, joins))
    as_mappings: list[EdgeWeights] = [dict(enumerate(w)) for w in weights]
    torch.testing.assert_close(block(x, Mixture(as_mappings, tensors)), actual)


def test_even_joins_change_nothing():
    block = super_block().eval()
    weights = softmax_weights(SPACE)
    x = torch.randn(2, 6, 7, 5)
    half = torch.tensor([0.5, 0.5])
    assert torch.equal(block(x, Mixture(weights, (half, half))), block(x, weights))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_gradients_of_the_weights_by_finite_differences(training: bool):
    block = super_block(4, TINY).double().train(training)
    block.join.norm.running_mean.fill_(-1)  # its ReLU lets something through
    x = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    leaves = [w.clone().requires_grad_() for w in softmax_weights(TINY, torch.float64)]
    leaves += [torch.tensor([0.4, 0.6], dtype=torch.float64, requires_grad=True)]
    leaves += [torch.tensor([0.7, 0.3], dtype=torch.float64, requires_grad=True)]

    def run(*values: Tensor) -> Tensor:
        return block(x, Mixture(values[:6], (values[6], values[7])))

    assert torch.autograd.gradcheck(run, leaves)
    for leaf in torch.autograd.grad(run(*leaves).square().sum(), leaves):
        assert leaf.abs().min() > 0


def test_operations_that_a_mapping_leaves_out_are_not_evaluated():
    block = super_block()
    with torch.no_grad():  # what is evaluated would show
        for edge, operations in block.edges.items():
            for index in range(7):
                if (edge, index) not in {("channel_excite", 0), ("channel_excite", 6)}:
                    for parameter in operations[index].parameters():
                        parameter.fill_(torch.nan)
    chosen = [{0: 1.0}, {0: 0.5, 6: torch.tensor(0.5)}, {0: 1.0}, {0: 1.0}, {0: 1.0}, {0: 1.0}]
    for edge, part in zip(EDGES, chosen, strict=True):
        for index in part:
            for parameter in block.edges[edge][index].parameters():
                torch.nn.init.constant_(parameter, 0.1)
    y = block(torch.randn(2, 6, 7, 5), chosen)
    assert y.isfinite().all()
    y.sum().backward()
    for edge, part in zip(EDGES, chosen, strict=True):
        for index in range(7):
            for parameter in block.edges[edge][index].parameters():
                assert (parameter.grad is not None) == (index in part), (edge, index)


def test_fewer_operations_cost_less():
    block = super_block()
    x = torch.randn(4, 6, 7, 5)

    def flops(weights: list[EdgeWeights]) -> int:
        with FlopCounterMode(display=False) as counter:
            block(x, weights)
        return counter.get_total_flops()

    every = list(range(7))
    counts = [
        flops([dict.fromkeys(kept, 1 / len(kept)) for _ in EDGES])
        for kept in (every, every[:5], every[:3], every[:1])
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 2 * counts[-1]


def test_a_wrong_number_of_weights_raises():
    block = SuperSASE(4, TINY)
    x = torch.randn(2, 4, 5, 3)
    weights = softmax_weights(TINY)
    for wrong in (weights[:5], [*weights, weights[0]], []):
        with pytest.raises(ValueError, match="zip"):
            block(x, wrong)
    for wrong_vector in (weights[0][:2], torch.ones(4)):
        with pytest.raises(ValueError, match="edge 'spatial_excite' has 3 operations, not"):
            block(x, [*weights[:5], wrong_vector])
    with pytest.raises(IndexError):
        block(x, [*weights[:5], {3: 1.0}])


def test_mixture_of_a_genotype_is_of_this_space():
    with pytest.raises(UserError, match="unknown operation of set 'spatial_excite'"):
        Mixture.of(PUBLISHED, TINY)
    assert Mixture.of(TINY[0], TINY).edges == [{0: 1.0}] * 6
    assert Mixture.of(TINY[5], TINY).edges == [*[{0: 1.0}] * 4, {1: 1.0}, {2: 1.0}]


def test_stages_of_a_mixture():
    two = replace(TINY, stages=2)
    genotype = two.parse(f"{TINY[5]}+{TINY[700]}")
    mixture = Mixture.of(genotype, two)
    assert mixture.stage(0).edges == Mixture.of(TINY[5], TINY).edges
    assert mixture.stage(1).edges == Mixture.of(TINY[700], TINY).edges
    shared = Mixture.of(TINY[5], TINY)
    assert shared.stage(3) is shared
    joins = (torch.ones(2), torch.ones(2))
    assert Mixture(mixture.edges, joins).stage(1).joins is joins


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_autocast_and_half_precision(dtype: torch.dtype):
    block = super_block().eval()
    weights = [w.requires_grad_() for w in softmax_weights(SPACE)]
    x = torch.randn(2, 6, 7, 5).to(dtype)
    expected = block(x.float(), weights)
    with torch.autocast("cpu", dtype):
        under_autocast = block(x, weights)
    assert under_autocast.dtype == dtype
    torch.testing.assert_close(under_autocast.float(), expected, rtol=0.02, atol=0.02)
    under_autocast.float().sum().backward()
    assert all(w.grad is not None and w.grad.isfinite().all() for w in weights)
    converted = copy.deepcopy(block).to(dtype)(x, [w.detach() for w in weights])
    assert converted.dtype == dtype
    assert converted.isfinite().all()


def test_state_dict_and_deepcopy():
    block = super_block().eval()
    x, weights = torch.randn(2, 6, 7, 5), softmax_weights(SPACE)
    other = SuperSASE(6, SPACE, size=(7, 5)).eval()
    other.load_state_dict(block.state_dict())
    for twin in (other, copy.deepcopy(block)):
        assert torch.equal(twin(x, weights), block(x, weights))
