import copy
import pickle
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import UserError
from search_spaces.genotype import EDGE_KINDS, EDGES, KINDS, PUBLISHED, Genotype

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True)
STAGE = st.lists(NAMES, min_size=6, max_size=6)
STAGES = st.lists(STAGE, min_size=1, max_size=4)


def assert_one_line(error: UserError) -> None:
    assert len(str(error).splitlines()) == 1


def two_stages() -> Genotype:
    return Genotype(tuple("abcdefABCDEF"))


def test_edges_are_those_of_the_block_in_the_order_of_the_text_form():
    assert EDGES == (
        "channel_squeeze",
        "channel_excite",
        "refine_excite",
        "refined_squeeze",
        "spatial_squeeze",
        "spatial_excite",
    )
    assert KINDS == ("channel_squeeze", "channel_excite", "spatial_squeeze", "spatial_excite")
    assert EDGE_KINDS["refine_excite"] == "channel_excite"
    assert EDGE_KINDS["refined_squeeze"] == "spatial_squeeze"


def test_published_genotype():
    assert str(PUBLISHED) == "gap_gmp-fc-affine-pnorm-gap-conv3x3_x2"
    assert PUBLISHED.edges() == {
        "channel_squeeze": "gap_gmp",
        "channel_excite": "fc",
        "refine_excite": "affine",
        "refined_squeeze": "pnorm",
        "spatial_squeeze": "gap",
        "spatial_excite": "conv3x3_x2",
    }
    assert Genotype.of(**PUBLISHED.edges()) == PUBLISHED


@given(STAGES)
def test_text_form_round_trip(stages: list[list[str]]):
    text = "+".join("-".join(stage) for stage in stages)
    genotype = Genotype.parse(text)
    assert str(genotype) == text
    assert genotype.ops == tuple(op for stage in stages for op in stage)
    assert Genotype.parse(str(genotype)) == genotype
    assert Genotype.parse(f"  {text}\n") == genotype
    assert hash(Genotype.parse(text)) == hash(genotype)
    assert set(text) <= set(string.ascii_letters + string.digits + "_-+")  # safe as a file name


@given(STAGES)
def test_stages_are_the_parts_of_the_text(stages: list[list[str]]):
    genotype = Genotype.parse("+".join("-".join(stage) for stage in stages))
    assert genotype.stages == len(stages)
    for index, ops in enumerate(stages):
        assert genotype.stage(index).ops == tuple(ops)


def test_a_shared_genotype_serves_every_stage_and_another_only_its_own():
    assert PUBLISHED.stage(0) == PUBLISHED.stage(3) == PUBLISHED
    for outside in (-1, 2):
        with pytest.raises(UserError, match=f"for 2 stages; the network asks for stage {outside}"):
            two_stages().stage(outside)
    with pytest.raises(UserError, match="has 2 stages: ask for one of them"):
        two_stages().edges()


def test_parse_passes_a_genotype_through_and_copies_are_equal():
    assert Genotype.parse(PUBLISHED) is PUBLISHED
    assert copy.deepcopy(PUBLISHED) == pickle.loads(pickle.dumps(PUBLISHED)) == PUBLISHED
    assert Genotype(list("abcdef")).ops == tuple("abcdef")  # type: ignore[arg-type]


@given(st.text() | st.lists(st.text(alphabet="ab_-+ \n1"), max_size=14).map("-".join))
def test_any_text_is_a_genotype_or_a_one_line_error(text: str):
    try:
        genotype = Genotype.parse(text)
    except UserError as error:
        assert_one_line(error)
    else:
        assert Genotype.parse(str(genotype)) == genotype


@pytest.mark.parametrize("value", [None, 7, 1.5, b"a-b-c-d-e-f", ["a"] * 6, {}])
def test_what_is_no_text_is_a_user_error(value: object):
    with pytest.raises(UserError, match="a genotype is a text such as gap_gmp-fc-"):
        Genotype.parse(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected 6 operations.*got 1"),
        ("a-b-c-d-e", r"'a-b-c-d-e': expected 6 operations.*channel_squeeze.*got 5"),
        ("a-b-c-d-e-f-g", "got 7"),
        ("a-b-c-d-e-f+a-b-c", "got 3"),
        ("a-b-c-d-e-f+", "got 1"),
        ("a--c-d-e-f", "'' is not an operation name"),
        ("a-b c-c-d-e-f", "'b c' is not an operation name"),
        ("3x3-b-c-d-e-f", "'3x3' is not an operation name"),
    ],
)
def test_wrong_text_is_told(text: str, message: str):
    with pytest.raises(UserError, match=message):
        Genotype.parse(text)


def test_wrong_operations_are_told():
    with pytest.raises(UserError, match=r"6 operations a stage.*got 0"):
        Genotype(())
    with pytest.raises(UserError, match=r"6 operations a stage.*got 7: 'a-b-c-d-e-f-g'"):
        Genotype(tuple("abcdefg"))
    with pytest.raises(UserError, match="lacks an operation for refine_excite, spatial_squeeze"):
        Genotype.of(
            channel_squeeze="a", channel_excite="b", refined_squeeze="c", spatial_excite="d"
        )
    with pytest.raises(UserError, match="unknown edge 'chanel_squeeze': did you mean 'channel_squ"):
        Genotype.of(chanel_squeeze="gap")
