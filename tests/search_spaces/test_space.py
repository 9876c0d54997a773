import copy
import math
import pickle
import random
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.stats import chisquare

from search_spaces.block import SASE
from search_spaces.errors import UserError, explain_validation_error, unknown_name
from search_spaces.genotype import EDGES, PUBLISHED, Genotype
from search_spaces.ops import build_op, load_operations
from search_spaces.space import SearchSpace, read_yaml_mapping, space_names

SASE_SPACE = SearchSpace.load("sase")
TINY = SearchSpace.load("sase_tiny")
TWO_STAGES = replace(TINY, name="two", stages=2)
FOUR_STAGES = replace(SASE_SPACE, name="four", stages=4)
UNEVEN = SearchSpace(
    name="uneven",
    sets={"one": ("a",), "two": ("a", "b"), "three": ("c", "d", "e")},
    edges=dict(zip(EDGES, ("one", "two", "three", "one", "two", "three"), strict=True)),
)
SPACES = [SASE_SPACE, TINY, TWO_STAGES, FOUR_STAGES, UNEVEN]
IDS = [space.name for space in SPACES]

DEFINITION: dict[str, Any] = {
    "name": "mine",
    "source": "me",
    "sets": {
        "cs": ["gap", "pnorm"],
        "ce": ["fc"],
        "ss": ["gap", "gap_std"],
        "se": ["sep3", "affine"],
    },
    "edges": dict(zip(EDGES, ("cs", "ce", "ce", "ss", "ss", "se"), strict=True)),
}


def write(folder: Path, content: Any, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def assert_one_line(error: UserError) -> None:
    assert len(str(error).splitlines()) == 1


def distance(first: Genotype, second: Genotype) -> int:
    return sum(a != b for a, b in zip(first.ops, second.ops, strict=True))


# Sizes and enumeration


def test_bundled_spaces():
    assert {"sase", "sase_published", "sase_tiny"} <= set(space_names())
    assert SASE_SPACE.size == len(SASE_SPACE) == 7**6 == 117_649
    assert TINY.size == 3**6 == 729
    assert all(set(TINY.sets[name]) <= set(ops) for name, ops in SASE_SPACE.sets.items())
    assert PUBLISHED in SASE_SPACE
    assert all(space.source for space in (SASE_SPACE, TINY))


def test_the_published_space_differs_from_ours_in_one_operation_and_ours_does_not_claim_to_be_it():
    published = SearchSpace.load("sase_published")
    ours = {name: set(ops) for name, ops in SASE_SPACE.sets.items()}
    theirs = {name: set(ops) for name, ops in published.sets.items()}
    assert theirs.pop("channel_squeeze") ^ ours.pop("channel_squeeze") == {"l2norm", "l2norm_in"}
    assert theirs == ours
    assert published.edges == SASE_SPACE.edges
    assert "ours" in SASE_SPACE.source
    assert PUBLISHED in published


def test_the_space_for_narrow_hosts_differs_from_ours_in_fc():
    narrow = SearchSpace.load("sase_narrow")
    texts = {str(genotype).replace("fc_min8", "fc") for genotype in narrow}
    assert texts == {str(genotype) for genotype in SASE_SPACE}


def test_published_sets():
    statistics = ("gap", "l2norm", "pnorm", "gap_gmp", "gap_std", "gap_skew", "cov")
    assert SASE_SPACE.sets == {
        "channel_squeeze": statistics,
        "channel_excite": ("conv3", "conv5", "conv7", "conv3_x2", "conv3_x3", "fc", "affine"),
        "spatial_squeeze": statistics,
        "spatial_excite": (
            "conv3x3",
            "conv5x5",
            "conv7x7",
            "conv3x3_x2",
            "sep3",
            "sep5",
            "affine",
        ),
    }


@pytest.mark.parametrize("space", [TINY, UNEVEN], ids=["tiny", "uneven"])
def test_enumeration_is_the_product_of_the_sets_the_last_edge_fastest(space: SearchSpace):
    listed = list(space)
    choices = [space.sets[space.edges[edge]] for edge in EDGES]
    assert [g.ops for g in listed] == list(product(*choices))
    assert len(listed) == len(set(listed)) == len({str(g) for g in listed}) == space.size
    assert [space[i] for i in range(space.size)] == listed
    assert [space.index(g) for g in listed] == list(range(space.size))
    assert all(g in space for g in listed)


def test_enumeration_of_the_published_space():
    count, seen = 0, set()
    for genotype in SASE_SPACE:
        count += 1
        seen.add(genotype.ops)
    assert count == len(seen) == 117_649


@pytest.mark.parametrize("space", SPACES, ids=IDS)
@given(data=st.data())
def test_index_is_the_inverse_of_indexing(space: SearchSpace, data: st.DataObject):
    index = data.draw(st.integers(0, space.size - 1))
    assert space.index(space[index]) == index
    assert space[index - space.size] == space[index]
    assert space.parse(str(space[index])) == space[index]


@pytest.mark.parametrize("space", SPACES, ids=IDS)
def test_indexing_ends_where_the_space_ends(space: SearchSpace):
    assert space[-1] == space[space.size - 1] != space[0]
    for outside in (space.size, -space.size - 1):
        with pytest.raises(IndexError):
            space[outside]


def test_per_stage_space():
    assert TWO_STAGES.size == 729**2
    names = [v.name for v in TWO_STAGES.variables]
    assert names == [f"stage{s}.{edge}" for s in (0, 1) for edge in EDGES]
    assert [v.edge for v in TWO_STAGES.variables] == [*EDGES, *EDGES]
    assert [v.name for v in TINY.variables] == list(EDGES)
    first, second = TINY[5], TINY[700]
    both = Genotype.parse(f"{first}+{second}")
    assert TWO_STAGES.index(both) == 5 * 729 + 700
    assert TWO_STAGES[5 * 729 + 700] == both


def test_a_space_too_large_for_len_works_all_the_same():
    assert FOUR_STAGES.size == 7**24  # more than sys.maxsize
    assert bool(FOUR_STAGES)
    drawn = FOUR_STAGES.sample_distinct(50, random.Random(0))
    assert len(set(drawn)) == 50
    assert all(g in FOUR_STAGES for g in drawn)
    # 50 draws that began at 0, or had few stages free, would leave some decision constant.
    assert all(len({g.ops[i] for g in drawn}) > 1 for i in range(24))


# Drawing


def test_sample_is_uniform():
    rng = random.Random(1)
    space = replace(UNEVEN, stages=1)
    counts = Counter(space.sample(rng) for _ in range(7200))
    assert set(counts) == set(space)  # 36 genotypes, about 200 each
    assert chisquare(list(counts.values())).pvalue > 0.001
    draws = [SASE_SPACE.sample(rng) for _ in range(3500)]
    for position, variable in enumerate(SASE_SPACE.variables):
        counted = Counter(g.ops[position] for g in draws)
        assert chisquare([counted[op] for op in variable.choices]).pvalue > 0.001


def test_sample_distinct_is_uniform_in_every_place():
    rng = random.Random(2)
    draws = [UNEVEN.sample_distinct(3, rng) for _ in range(2400)]
    assert all(len(set(draw)) == 3 for draw in draws)
    for place in range(3):
        counts = Counter(draw[place] for draw in draws)
        assert chisquare([counts[g] for g in UNEVEN]).pvalue > 0.001


def test_sample_distinct_takes_up_to_all():
    assert Counter(TINY.sample_distinct(729, random.Random(3))) == Counter(TINY)
    assert TINY.sample_distinct(0, random.Random(3)) == []
    for wrong in (730, -1):
        with pytest.raises(UserError, match=f"'sase_tiny' has 729 genotypes, {wrong} asked for"):
            TINY.sample_distinct(wrong, random.Random(3))


@pytest.mark.parametrize("space", SPACES, ids=IDS)
def test_a_seed_fixes_the_draws(space: SearchSpace):
    def draw(seed: int) -> list[Genotype]:
        rng = random.Random(seed)
        first, second = space.sample(rng), space.sample(rng)
        children = [space.mutate(first, rng), space.crossover(first, second, rng)]
        return [first, second, *children, *space.sample_distinct(5, rng)]

    assert draw(4) == draw(4)
    assert draw(4) != draw(5)


# Neighbourhood


@pytest.mark.parametrize(
    ("space", "count"),
    [(SASE_SPACE, 6 * 6), (TINY, 6 * 2), (TWO_STAGES, 12 * 2), (UNEVEN, 1 + 2 + 1 + 2)],
    ids=["sase", "tiny", "two", "uneven"],
)
def test_neighbours_differ_in_one_decision(space: SearchSpace, count: int):
    genotype = space[space.size // 3]
    neighbours = space.neighbours(genotype)
    assert len(set(neighbours)) == len(neighbours) == count
    assert all(distance(genotype, other) == 1 and other in space for other in neighbours)


@pytest.mark.parametrize("space", SPACES, ids=IDS)
@given(seed=st.integers(0, 2**32), data=st.data())
@settings(max_examples=30)
def test_mutate_changes_exactly_so_many(space: SearchSpace, seed: int, data: st.DataObject):
    rng = random.Random(seed)
    genotype = space.sample(rng)
    free = sum(len(v.choices) > 1 for v in space.variables)
    changes = data.draw(st.integers(0, free))
    child = space.mutate(genotype, rng, changes)
    assert distance(genotype, child) == changes
    assert child in space
    for wrong in (free + 1, -1):
        with pytest.raises(UserError, match=f"cannot change {wrong} decisions: {free} have"):
            space.mutate(genotype, rng, wrong)


def test_mutation_is_uniform_over_the_neighbours():
    rng = random.Random(6)
    genotype = TINY[100]
    counts = Counter(TINY.mutate(genotype, rng) for _ in range(2400))
    assert set(counts) == set(TINY.neighbours(genotype))
    assert chisquare(list(counts.values())).pvalue > 0.001


@pytest.mark.parametrize("space", SPACES, ids=IDS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=30)
def test_crossover_takes_from_parents_only(space: SearchSpace, seed: int):
    rng = random.Random(seed)
    first, second = space.sample(rng), space.sample(rng)
    child = space.crossover(first, second, rng)
    assert all(op in pair for op, *pair in zip(child.ops, first.ops, second.ops, strict=True))
    assert space.crossover(first, first, rng) == first


def test_crossover_takes_from_both_parents_evenly():
    rng = random.Random(7)
    first, second = TINY[0], TINY[728]  # which differ everywhere
    children = [TINY.crossover(first, second, rng) for _ in range(600)]
    for place in range(6):
        taken = sum(child.ops[place] == first.ops[place] for child in children)
        assert chisquare([taken, 600 - taken]).pvalue > 0.001
    assert len(set(children)) == 2**6


# Configurations of trials


@pytest.mark.parametrize("space", SPACES, ids=IDS)
def test_config_round_trip(space: SearchSpace):
    genotype = space[space.size // 2]
    config = space.to_config(genotype)
    assert list(config) == [v.name for v in space.variables]
    assert space.from_config({**config, "learning_rate": 0.1}) == genotype


def test_wrong_config_is_told():
    config = TINY.to_config(TINY[0])
    with pytest.raises(UserError, match="config lacks refine_excite"):
        TINY.from_config({k: v for k, v in config.items() if k != "refine_excite"})
    with pytest.raises(UserError, match=r"'gap_gpm': did you mean 'gap_gmp'\?"):
        TINY.from_config({**config, "channel_squeeze": "gap_gpm"})
    with pytest.raises(UserError, match="'3' is not an operation name"):
        TINY.from_config({**config, "channel_squeeze": 3})


# Validation


def test_wrong_name_is_told_with_set_allowed_names_and_nearest():
    with pytest.raises(UserError) as told:
        SASE_SPACE.parse("gap_gpm-fc-affine-pnorm-gap-conv3x3_x2")
    assert str(told.value) == (
        "unknown operation of set 'channel_squeeze' (edge channel_squeeze) 'gap_gpm': "
        "did you mean 'gap_gmp'? "
        "allowed are gap, l2norm, pnorm, gap_gmp, gap_std, gap_skew, cov"
    )
    with pytest.raises(UserError, match=r"set 'channel_excite' \(edge refine_excite\) 'gap'"):
        SASE_SPACE.parse("gap-fc-gap-pnorm-gap-conv3x3_x2")
    with pytest.raises(
        UserError, match=r"\(edge stage1\.spatial_excite\) 'sep3'.*conv3x3, conv7x7"
    ):
        TWO_STAGES.parse(f"{TINY[0]}+gap-conv3-conv3-gap-gap-sep3")


def test_no_nearest_name_where_none_is_near():
    with pytest.raises(UserError) as told:
        SASE_SPACE.parse("zzzzzz-fc-affine-pnorm-gap-conv3x3_x2")
    assert "did you mean" not in str(told.value)
    assert "'zzzzzz': allowed are gap, l2norm" in str(told.value)


@pytest.mark.parametrize(
    "use",
    [
        lambda space, g: space.validate(g),
        lambda space, g: space.index(g),
        lambda space, g: space.neighbours(g),
        lambda space, g: space.mutate(g, random.Random(0)),
        lambda space, g: space.crossover(g, TINY[0], random.Random(0)),
        lambda space, g: space.crossover(TINY[0], g, random.Random(0)),
        lambda space, g: space.to_config(g),
    ],
)
def test_a_genotype_of_another_space_is_refused(use: Any):
    with pytest.raises(UserError, match="unknown operation of set 'spatial_excite'"):
        use(TINY, PUBLISHED)
    with pytest.raises(UserError, match=r"has 1 stage\(s\), genotype .* has 2"):
        use(TINY, TWO_STAGES[0])


@pytest.mark.parametrize("other", [PUBLISHED, TWO_STAGES[0], "nonsense", "", None, 3, b"x", ()])
def test_what_does_not_belong_is_not_in_the_space(other: object):
    assert other not in TINY
    assert str(TINY[7]) in TINY


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edges": {**UNEVEN.edges, "gate": "one"}}, "unknown edge 'gate'"),
        ({"edges": {"channel_squeeze": "one"}}, "edge 'channel_excite' has no set"),
        (
            {"edges": {**UNEVEN.edges, "spatial_excite": "thre"}},
            r"set of edge 'spatial_excite' 'thre': did you mean 'three'\? allowed are one, two",
        ),
        ({"sets": {**UNEVEN.sets, "one": ()}}, "'uneven': set 'one' is empty"),
        ({"sets": {**UNEVEN.sets, "one": ("a", "a")}}, "names one twice"),
        ({"sets": {**UNEVEN.sets, "one": ("3x3",)}}, "'3x3' in set 'one' is not a name"),
        ({"stages": 0}, "stages is 1 or more, not 0"),
    ],
)
def test_a_faulty_space_is_told(changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        replace(UNEVEN, **changes)


# Files


@pytest.mark.parametrize("suffix", ["yaml", "yml"])
def test_a_users_file(tmp_path: Path, suffix: str):
    path = write(tmp_path, DEFINITION, f"mine.{suffix}")
    for given_as in (path, str(path)):
        space = SearchSpace.load(given_as)
        assert (space.name, space.source, space.stages) == ("mine", "me", 1)
        assert space.size == 2 * 1 * 1 * 2 * 2 * 2
        assert str(space[0]) == "gap-fc-fc-gap-gap-sep3"
    assert SearchSpace.load(space) is space
    assert copy.deepcopy(space) == pickle.loads(pickle.dumps(space)) == space


def test_a_users_file_with_a_choice_for_each_stage(tmp_path: Path):
    space = SearchSpace.load(write(tmp_path, {**DEFINITION, "scope": "stage", "stages": 3}))
    assert space.stages == 3
    assert space.size == 16**3


OPERATIONS = """
from search_spaces.ops import register_op

@register_op("channel_squeeze", "space_test_min", source="mine")
def space_test_min(x):
    "The minimum."
    return x.amin((2, 3), keepdim=True)
"""


def test_a_users_own_operations_travel_with_the_space(tmp_path: Path):
    (tmp_path / "mine.py").write_text(OPERATIONS)
    sets = {**DEFINITION["sets"], "cs": ["gap", "space_test_min"]}
    path = write(tmp_path, {**DEFINITION, "operations": ["mine.py"], "sets": sets})
    space = pickle.loads(pickle.dumps(SearchSpace.load(path)))
    (tmp_path / "mine.py").unlink()  # as on a worker that never had the file
    load_operations(space)
    genotype = space.parse("space_test_min-fc-fc-gap-gap-sep3")
    block = SASE(4, genotype)
    assert build_op("channel_squeeze", "space_test_min", 4, (3, 3)) is not None
    assert type(block.edges["channel_squeeze"]).__name__ == "Stateless"


def without(key: str, of: str) -> dict[str, Any]:
    return {**DEFINITION, of: {k: v for k, v in DEFINITION[of].items() if k != key}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**DEFINITION, "scpoe": "stage"}, "unknown key 'scpoe': did you mean 'scope'"),
        ({"nmae": "x", "sets": {}, "edges": {}}, "unknown key 'nmae': did you mean 'name'"),
        ({**DEFINITION, "zzz": 1}, "unknown key 'zzz': allowed are name, source, scope, stages"),
        ({k: v for k, v in DEFINITION.items() if k != "sets"}, "sets: field required"),
        ({**DEFINITION, "sets": ["gap"]}, r"sets: input should be a valid dict.*got \['gap'\]"),
        ({**DEFINITION, "sets": {"cs": "gap"}}, "sets.cs: input should be a valid list.*'gap'"),
        ({**DEFINITION, "sets": {"cs": [True]}}, r"sets.cs.0: input should be a valid string"),
        ({**DEFINITION, "sets": {"a\nb": 3}}, "sets.a b: input should be a valid list"),
        ({**DEFINITION, "edges": 3}, r"edges: input should be a valid dictionary \(got 3\)"),
        ({**DEFINITION, "name": 2024}, r"name: input should be a valid string \(got 2024\)"),
        ({**DEFINITION, "name": "a/b"}, "name: string should match pattern.*'a/b'"),
        ({**DEFINITION, "name": "a\n"}, "name: string should match pattern"),
        ({**DEFINITION, "scope": "block"}, "scope: input should be 'network' or 'stage'"),
        ({**DEFINITION, "scope": "stage"}, "scope 'stage' needs 'stages: N'"),
        ({**DEFINITION, "stages": 3}, "scope 'network' takes no 'stages'"),
        ({**DEFINITION, "scope": "stage", "stages": 0}, "stages: input should be greater"),
        ({**DEFINITION, "scope": "stage", "stages": 10**9}, "stages: input should be less"),
        ({**DEFINITION, "scope": "stage", "stages": True}, r"valid integer \(got True\)"),
        ({**DEFINITION, "scope": "stage", "stages": "3"}, r"valid integer \(got '3'\)"),
        (without("refine_excite", "edges"), "'mine': edge 'refine_excite' has no set"),
        (without("ss", "sets"), "unknown set of edge 'refined_squeeze' 'ss'"),
        ({**DEFINITION, "sets": {**DEFINITION["sets"], "x": []}}, "set 'x' is empty"),
        ({**DEFINITION, "operations": ["gone.py"]}, "gone.py: No such file"),
        ({**DEFINITION, "operations": ["."]}, "operations file .*: Is a directory"),
        ({**DEFINITION, "operations": ["binary.bin"]}, "binary.bin' is not a text file"),
        ({**DEFINITION, "operations": ["a\0b"]}, "is not a text file"),
        ("", "expected keys and values, got an empty file"),
        ("- a\n- b", "expected keys and values, got a list"),
        ("just words", "expected keys and values, got a str"),
        ("name: [\nsets: }", r"is not valid YAML \(line 2\)"),
        ("name: *nowhere", r"is not valid YAML \(line 1\)"),
        ("name: !!python/object:os.system x", "is not valid YAML"),
        ("name: !!timestamp 2020-13-45", "is not valid YAML"),
        ("name: !!int x", "is not valid YAML"),
        ("name: !!bool x", "is not valid YAML"),
        ("name: !!timestamp x", "is not valid YAML"),
        ("name: 0x" + "f" * 5000, "name: input should be a valid string .got an int too long"),
        ("[" * 5000, "is not valid YAML"),
    ],
)
def test_a_faulty_file_is_one_sentence(tmp_path: Path, content: Any, message: str):
    (tmp_path / "binary.bin").write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match=message) as told:
        SearchSpace.load(write(tmp_path, content))
    assert_one_line(told.value)
    assert len(str(told.value)) < 400 + len(str(tmp_path))


def test_aliases_do_not_blow_an_error_up(tmp_path: Path):
    values = ["&a0 [x, x]", *(f"&a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))]
    with pytest.raises(UserError, match="too large: with its aliases written out") as told:
        SearchSpace.load(write(tmp_path, f"name: [{', '.join(values)}]"))  # 2^60 values
    assert len(str(told.value)) < 400 + len(str(tmp_path))


def test_places_without_a_space_are_told(tmp_path: Path):
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "binary.yaml").write_bytes(b"\x80\x81\x00\xff" * 100)
    cases = {
        "sase_tyni": "unknown search space 'sase_tyni': did you mean 'sase_tiny'",
        "": "unknown search space ''.*the path of a YAML file",
        str(tmp_path): "unknown search space.*the path of a YAML file",
        str(tmp_path / "folder.yaml"): "folder.yaml: Is a directory",
        str(tmp_path / "gone.yaml"): "gone.yaml: No such file or directory",
        str(tmp_path / "binary.yaml"): "binary.yaml' is not a text file",
        "a\0b.yaml": "is not a text file",
    }
    for place, message in cases.items():
        with pytest.raises(UserError, match=message) as told:
            SearchSpace.load(place)
        assert_one_line(told.value)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=6) | st.integers() | st.none(), inner, max_size=4)
    ),
    max_leaves=8,
)
LIKELY = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["mine", "a b", ""]) | VALUES,
        "source": st.just("me") | VALUES,
        "scope": st.sampled_from(["network", "stage"]) | VALUES,
        "stages": st.integers(-1, 5) | VALUES,
        "operations": st.lists(st.text(max_size=4), max_size=2) | VALUES,
        "sets": st.just(DEFINITION["sets"])
        | st.dictionaries(st.sampled_from(["cs", "ce", "ss", "se", "a\nb"]), VALUES)
        | VALUES,
        "edges": st.just(DEFINITION["edges"])
        | st.dictionaries(st.sampled_from(EDGES), st.sampled_from(["cs", "ce", "x\ny"]) | VALUES)
        | VALUES,
        "other": VALUES,
    },
)
CONTENTS = (
    st.binary(max_size=60)
    | st.text(alphabet="nae:{}[]&*!|>-?#%@'\" \n\t01x", max_size=40).map(str.encode)
    | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | (VALUES | LIKELY).map(
        lambda value: yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")
    )
)


@pytest.mark.slow
@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(CONTENTS)
@example(yaml.safe_dump(DEFINITION).encode())
@example(b"name: !!float x")
@example(b"? {a: b}\n: c")
@example(b'"\\ud800": 1')
def test_any_file_is_a_space_or_a_one_line_error(tmp_path: Path, content: bytes):
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    try:
        space = SearchSpace.load(path)
    except UserError as error:
        assert_one_line(error)
    else:
        assert space.size == math.prod(len(v.choices) for v in space.variables)
        assert space.parse(str(space[-1])) == space[-1]


# Errors


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    epochs: int = 1


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    proxy: Inner = Inner()
    other: Inner | None = None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"proxy": {"epohcs": 5}}, "here: unknown key 'proxy.epohcs': did you mean 'epochs'?"),
        ({"other": {"epohcs": 5}}, "here: unknown key 'other.epohcs': did you mean 'epochs'?"),
        ({"zzz": 5}, "here: unknown key 'zzz': allowed are proxy, other"),
        (
            {"proxy": {"epochs": "many"}},
            "here: proxy.epochs: input should be a valid integer, unable to parse string as an "
            "integer (got 'many')",
        ),
    ],
)
def test_a_wrong_key_of_a_nested_model_is_told(values: dict[str, Any], message: str):
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate(values)
    assert str(explain_validation_error(raised.value, Outer, "here")) == message


def test_an_error_is_one_line_and_survives_a_pickle():
    error = unknown_name("set", "a\nb", ["a\u2028c", "d"])
    assert len(str(error).splitlines()) == 1
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is UserError
    assert str(twin) == str(error)


def test_read_yaml_mapping_names_what_it_reads(tmp_path: Path):
    assert read_yaml_mapping(write(tmp_path, {"a": [1]}), "configuration") == {"a": [1]}
    with pytest.raises(UserError, match=r"^configuration .*gone\.yaml: No such file"):
        read_yaml_mapping(tmp_path / "gone.yaml", "configuration")
