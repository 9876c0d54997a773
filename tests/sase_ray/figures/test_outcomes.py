"""Figures: text is text, colours can be read by day and night, labels never lie on each other."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sase_ray import load_run
from sase_ray.figures.block import draw_block
from sase_ray.figures.block_text import draw
from sase_ray.figures.gradcam import gradcam_figure, overlay
from sase_ray.figures.outcomes import AGAINST, COSTS, anytime_figure, looks_of, tradeoff_figure
from sase_ray.figures.style import DARK, HUES, LIGHT, looks, spread, styled, to_svg
from search_spaces.errors import UserError
from search_spaces.genotype import EDGES, PUBLISHED

SVG = "{http://www.w3.org/2000/svg}"


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


# Names stand beside lines in ink, so that a line must only be seen.
@pytest.mark.parametrize(("theme", "least"), [(LIGHT, 2), (DARK, 3)])
def test_text_can_be_read_and_lines_can_be_seen(theme, least):
    assert contrast(theme["ink"], theme["paper"]) >= 7
    assert contrast(theme["muted"], theme["paper"]) >= 4.5
    assert all(contrast(theme[f"hue{i}"], theme["paper"]) >= least for i in range(len(HUES)))
    assert theme.keys() == LIGHT.keys()


def test_every_strategy_has_a_look_of_its_own():
    names = [f"strategy{i}" for i in range(18)]
    found = looks([*names, "random"])
    assert len({(look.color, look.dash) for look in found.values()}) == 19
    assert found["random"].color not in HUES


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.floats(-1, 2), max_size=12), st.floats(0.01, 0.3))
def test_labels_keep_apart_and_in_order(places, gap):
    moved = spread(places, gap, 0, 1)
    fitting = min(gap, 1 / max(1, len(places) - 1))
    ordered = [moved[i] for i in np.argsort(places, kind="stable")]
    assert all(b - a >= fitting - 1e-9 for a, b in pairwise(ordered))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in moved)


def test_labels_with_room_stay():
    assert spread([0.9, 0.1, 0.5], 0.1, 0, 1) == pytest.approx([0.9, 0.1, 0.5])


def svg_texts(figure):
    root = ElementTree.fromstring(to_svg(figure, "a figure"))
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def test_the_drawn_block_names_every_operation_and_edge():
    written = svg_texts(draw_block(PUBLISHED))
    for op in PUBLISHED.ops:
        assert op in written
    for edge in EDGES:
        assert edge.replace("_", " ") in written


def test_the_blocks_of_all_stages_are_drawn():
    written = svg_texts(draw_block("a-b-c-d-e-f+g-h-i-j-k-l"))
    assert {*"abcdefghijkl", "stage 0", "stage 1"} <= set(written)
    assert [written.count(edge.replace("_", " ")) for edge in EDGES] == [2] * 6


def test_what_is_written_in_the_drawing_is_what_the_text_says():
    """Without lines and boxes, both hold the same words in the same order."""
    drawn = svg_texts(draw_block(PUBLISHED))
    names = {edge.replace("_", " ") for edge in EDGES}
    words = [word for text in drawn if text not in names for word in text.split()]
    in_text = re.sub(r"[─│┬├┐└┘\[\]]", " ", draw(PUBLISHED)).split()
    assert sorted(words) == sorted(in_text)


@pytest.mark.parametrize("genotype", ["gap", 5])
def test_what_is_no_block_is_not_drawn(genotype):
    with pytest.raises(UserError):
        draw_block(genotype)


def test_every_look_and_name_of_a_reference_run_is_in_its_figures(reference):
    run = load_run(reference)
    assert set(looks_of(run)) == set(run.strategies["name"])
    written = svg_texts(tradeoff_figure(run, "latency_ms"))
    assert set(run.strategies["name"]) <= set(written)
    assert COSTS["latency_ms"] in written
    written = svg_texts(anytime_figure(run, "trials"))
    assert {"random", "tpe", "asha", "tpe-asha", AGAINST["trials"]} <= set(written)


def test_svg_is_the_same_again_and_does_not_share_names(reference):
    with styled():
        first, again, other = (to_svg(draw_block(PUBLISHED), n) for n in ("a", "a", "b"))
    assert first == again
    ids = [{e.get("id") for e in ElementTree.fromstring(s).iter()} - {None} for s in (first, other)]
    assert not ids[0] & ids[1]


def test_gradcam_shows_the_same_images_for_all(make_run):
    run = load_run(make_run())
    written = svg_texts(gradcam_figure(run))
    assert written.count("image") == 1
    assert {"none", "se", "cbam", "tpe"} <= set(written)
    svg = to_svg(gradcam_figure(run), "g")
    assert svg.count("data:image/png;base64,") == 4 * 5


def test_an_overlay_is_bright_where_the_map_is():
    pixels, cam = np.full(12, 100, np.uint8), np.array([0, 255, 0, 0], np.uint8)
    cell = {"height": 2, "width": 2, "channels": 3, "pixels": pixels.tobytes(),
            "cam": cam.tobytes()}  # fmt: skip
    drawn = overlay(pd.Series(cell)).mean(axis=2)
    assert drawn.argmax() == 1
    assert drawn.shape == (2, 2)


@pytest.mark.parametrize(
    "wrong", [{"channels": 2}, {"height": 27}, {"height": -28}, {"cam": b""}, {"width": 10**9}]
)
def test_a_picture_of_another_size(wrong, make_run):
    run = load_run(make_run())
    for column, value in wrong.items():
        run.gradcam[column] = [value] * len(run.gradcam)
    with pytest.raises(UserError, match=r"gradcam.parquet"):
        gradcam_figure(run)
