"""The drawing of a block: every operation in its place, every line in its column."""

from __future__ import annotations

import random
import re

import pytest

from sase_ray.figures.block_text import draw
from search_spaces.errors import UserError
from search_spaces.genotype import Genotype
from search_spaces.space import SearchSpace

SPACE = SearchSpace.load("sase")
RANDOM = SPACE.sample_distinct(300, random.Random(0))
UNEVEN = [
    Genotype(("a", "b" * 20, "c", "d", "e" * 20, "f")),
    Genotype(("a" * 20, "b", "c" * 20, "d" * 20, "e", "f" * 20)),
    Genotype(("a", "b", "c", "d", "e", "f")),
]


@pytest.mark.parametrize("genotype", [*RANDOM[:20], *UNEVEN], ids=str)
def test_operations_are_drawn_on_their_edges(genotype):
    squeeze, excite, refine, refined, plain, spatial = genotype.ops
    lines = draw(genotype).splitlines()
    assert re.search(rf"^x ─┬─ \[{squeeze}\] ─ z ─┬─ \[{excite}\]─+ g_c", lines[0])
    assert re.search(rf"└─ \[{refine}\]─+ m", lines[1])
    assert "×" in lines[2]
    assert lines[2].endswith("gate = (g_c + g_s) / 2")
    assert re.search(rf"└─ u ─ \[{refined}\]─+ s_u ─┐", lines[3])
    assert re.search(rf"├─ join ─ s ─ \[{spatial}\] ─ g_s", lines[4])
    assert re.search(rf"└─+ \[{plain}\]─+ s_x ─┘", lines[5])
    assert lines[-1] == "output = x + x · gate"


@pytest.mark.parametrize("genotypes", [RANDOM, UNEVEN], ids=["random", "uneven"])
def test_lines_meet_in_their_columns(genotypes):
    for genotype in genotypes:
        top, m, times, u, s, x = draw(genotype).splitlines()[:6]
        gate = top.index("┐")
        column = [top[gate], m[gate], times[gate], u[gate], s[gate]]
        assert column == ["┐", "│", "├", "│", "┘"], draw(genotype)
        assert [line[3] for line in (top, m, times, u, s, x)] == ["┬", "│", "├", "│", "│", "└"]
        fork = top.index("┬", 4)
        assert m[fork] == "└"
        multiply = times.index("×")
        assert times.index("┘") == m.rindex("m"), "m is led to the product"
        assert u[multiply] == "└"
        join = u.index("┐")
        assert [s[join], x[join]] == ["├", "┘"]
        assert u.index("[") == x.index("[")


def test_a_genotype_of_stages_is_drawn_stage_by_stage():
    genotype = Genotype.parse(f"{RANDOM[0]}+{RANDOM[1]}")
    with pytest.raises(UserError, match="2 stages"):
        draw(genotype)
    assert draw(genotype.stage(1)) == draw(RANDOM[1])
