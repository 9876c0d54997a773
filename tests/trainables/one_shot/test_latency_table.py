"""The latency table: its expectation against enumeration, and what it is refused for."""

from __future__ import annotations

import pytest
import torch

from search_spaces.errors import UserError
from search_spaces.mixture import Mixture
from search_spaces.network import NetworkSpec
from search_spaces.space import SearchSpace
from trainables.hardware.device import device_name
from trainables.one_shot import latency_table as latency
from trainables.one_shot.latency_table import LatencyTable, cache_path, cached_latency_table

CPU = torch.device("cpu")
SPEC = NetworkSpec("resnet8", 10, 1, (8, 8), {"width": 4})


@pytest.fixture
def space(write_space):
    choices = {"channel_excite": ["conv3", "affine"], "spatial_excite": ["conv3x3", "affine"]}
    return SearchSpace.load(write_space(choices | {"channel_squeeze": ["gap", "gap_gmp", "cov"]}))


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Measure in no time, into a cache of this test; a list of the calls."""
    monkeypatch.setenv("SASE_CACHE", str(tmp_path / "cache"))
    calls = []
    measure = LatencyTable.measure

    def counted(spec, space, device, **options):
        calls.append(spec)
        return measure(spec, space, device, **{"min_seconds": 1e-4, **options})

    monkeypatch.setattr(LatencyTable, "measure", counted)
    return calls


@pytest.fixture
def table(space, quick):
    return LatencyTable.measure(SPEC, space, CPU)


def probabilities(space, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(len(v.choices), generator=generator, dtype=torch.float64).softmax(0)
        for v in space.variables
    ]


def test_the_expected_latency_equals_enumeration(space, table):
    rows = probabilities(space)
    expected = 0.0
    total = 0.0
    for genotype in space:
        chance = 1.0
        for variable, row, op in zip(space.variables, rows, genotype.ops, strict=True):
            chance *= float(row[variable.choices.index(op)])
        ms = table.host
        for variable, op in zip(space.variables, genotype.ops, strict=True):
            ms += table.operations[variable.name][op]
        assert table.of(genotype, space) == pytest.approx(ms)
        assert float(table.expected(Mixture.of(genotype, space), space)) == pytest.approx(ms)
        expected += chance * ms
        total += chance
    assert total == pytest.approx(1)
    assert float(table.expected(Mixture(rows), space)) == pytest.approx(expected, rel=1e-6)


def test_the_expected_latency_has_the_operations_costs_as_gradient(space, table):
    rows = [row.requires_grad_() for row in probabilities(space)]
    gradients = torch.autograd.grad(table.expected(Mixture(rows), space), rows)
    for variable, gradient in zip(space.variables, gradients, strict=True):
        assert gradient.tolist() == [table.operations[variable.name][op] for op in variable.choices]


def test_operations_that_are_left_out_cost_nothing(space, table):
    edges = [{0: 1.0} for _ in space.variables]
    edges[0] = {1: torch.tensor(0.25), 2: torch.tensor(0.75)}
    costs = table.operations["channel_squeeze"]
    others = sum(table.operations[v.name][v.choices[0]] for v in space.variables[1:])
    expected = table.host + others + 0.25 * costs["gap_gmp"] + 0.75 * costs["cov"]
    assert float(table.expected(Mixture(edges), space)) == pytest.approx(expected, rel=1e-6)


def test_every_operation_is_measured_in_every_block(space, table):
    assert table.host > 0
    assert {name: set(row) for name, row in table.operations.items()} == {
        v.name: set(v.choices) for v in space.variables
    }
    assert all(ms > 0 for row in table.operations.values() for ms in row.values())
    assert table.device == device_name(CPU)


def test_stages_that_choose_for_themselves_have_costs_of_their_own(write_space, quick):
    choices = {"channel_squeeze": ["gap", "cov"]}
    space = SearchSpace.load(write_space(choices, scope="stage", stages=3))
    table = LatencyTable.measure(SPEC, space, CPU)
    assert len(table.operations) == 18
    assert all(ms > 0 for row in table.operations.values() for ms in row.values())


def test_measuring_leaves_torchs_random_state_alone(space, quick):
    before = torch.get_rng_state()
    LatencyTable.measure(SPEC, space, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_table_of_another_device_is_refused(space, table):
    other = table.model_copy(update={"device": "NVIDIA H200"})
    with pytest.raises(UserError, match=r"NVIDIA H200.*measure one there"):
        other.check(SPEC, space, CPU)
    table.check(SPEC, space, CPU)


def test_a_table_of_other_threads_is_refused(space, table):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        with pytest.raises(UserError, match=f"{threads} thread"):
            table.check(SPEC, space, CPU)
    finally:
        torch.set_num_threads(threads)


def test_a_table_of_another_network_or_space_is_refused(space, table):
    wider = NetworkSpec("resnet8", 10, 1, (8, 8), {"width": 8})
    for spec, other in [(wider, space), (SPEC, SearchSpace.load("sase_tiny"))]:
        with pytest.raises(UserError, match="another network or space"):
            table.check(spec, other, CPU)


def test_a_table_that_lacks_an_operation_is_refused(space, table):
    operations = {name: dict(row) for name, row in table.operations.items()}
    del operations["channel_squeeze"]["cov"]
    with pytest.raises(UserError, match="another network or space"):
        table.model_copy(update={"operations": operations}).check(SPEC, space, CPU)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"device": "a"}',
        '{"device": "a", "network": "b", "batch_size": 1, "host": -1, "operations": {}}',
        '{"device": "a", "network": "b", "batch_size": 1, "host": 1e-4, "operations": {}}',
        '{"device": "a", "network": "b", "batch_size": 1, "host": NaN, "operations": {}}',
        '{"device": "a", "network": "b", "batch_size": 1, "host": 1, "operations": {"c": 1}}',
        '{"device":"a","network":"b","batch_size":1,"host":1,"operations":{"c":{"gap":-1}}}',
    ],
)
def test_a_file_that_is_no_table_is_refused(text, tmp_path):
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"table\.json"):
        LatencyTable.load(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json"):
        LatencyTable.load(tmp_path / "nowhere.json")


def test_a_table_that_cannot_be_written_is_reported(table, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        table.save(tmp_path / "file" / "table.json")


def test_a_table_is_the_same_after_saving(table, tmp_path):
    table.save(tmp_path / "deep" / "table.json")
    assert LatencyTable.load(tmp_path / "deep" / "table.json") == table
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["table.json"]


def test_a_network_is_measured_once_a_device(space, quick, monkeypatch):
    first = cached_latency_table(SPEC, space, CPU)
    assert cached_latency_table(SPEC, space, CPU) == first
    assert len(quick) == 1
    cached_latency_table(NetworkSpec("resnet8", 10, 1, (8, 8), {"width": 8}), space, CPU)
    assert len(quick) == 2
    monkeypatch.setattr(latency, "device_name", lambda device: "another")
    assert cached_latency_table(SPEC, space, CPU).device == "another"
    assert len(quick) == 3


def test_searches_that_measure_at_once_take_the_same_table(space, quick, monkeypatch):
    measure = LatencyTable.measure
    other = []

    def meanwhile(*args, **options):
        if not other:
            other.append(None)
            other[0] = cached_latency_table(SPEC, space, CPU)
        return measure(*args, **options)

    monkeypatch.setattr(LatencyTable, "measure", meanwhile)
    own = cached_latency_table(SPEC, space, CPU)
    assert len(quick) == 2
    assert own == other[0]
    path = cache_path(SPEC, space, CPU)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_cache_that_was_tampered_with_is_refused(space, quick, monkeypatch):
    table = cached_latency_table(SPEC, space, CPU)
    path = cache_path(SPEC, space, CPU)
    table.model_copy(update={"device": "another"}).save(path)
    with pytest.raises(UserError, match="another"):
        cached_latency_table(SPEC, space, CPU)
    path.write_text("{")
    with pytest.raises(UserError, match=path.name):
        cached_latency_table(SPEC, space, CPU)


def test_a_table_that_is_there_can_be_kept(table, tmp_path):
    path = tmp_path / "table.json"
    table.save(path, keep=True)
    assert LatencyTable.load(path) == table
    table.model_copy(update={"host": 2 * table.host}).save(path, keep=True)
    assert LatencyTable.load(path) == table
    assert not list(tmp_path.glob(".*.partial"))
