"""YAML files and paths of users: what they mean, and what is refused."""

from __future__ import annotations

import getpass
import math
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import UserError
from search_spaces.user_files import dump_yaml, parse_yaml
from search_spaces.user_paths import expand, expand_in


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # What YAML 1.1 reads as 750, a date, 8, truths, 202401 and a text (YAML 1.2.2, 10.3.2).
        ("12:30", "12:30"),
        ("1:30.5", "1:30.5"),
        ("2026-01-31", "2026-01-31"),
        ("010", 10),
        ("0o10", 8),
        ("0xFF", 255),
        ("0b11", "0b11"),
        ("no", "no"),
        ("On", "On"),
        ("y", "y"),
        ("2024_01", "2024_01"),
        ("60_000", 60_000),
        ("-1_000_000", -1_000_000),
        ("1e-3", 0.001),
        ("1E6", 1e6),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("-12", -12),
        ("true", True),
        ("~", None),
        ("", None),
        ("'12'", "12"),
    ],
)
def test_values_are_read_by_the_core_schema_of_yaml_1_2(text, value):
    read = parse_yaml(text, "here")
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", "lines 1 and 3"),
        ("x:\n  a: 1\n  'a': 1\n", "a", "lines 2 and 3"),
        ("{a: 1, a: 1}", "a", "line 1"),
        ("- {b: 1}\n- {1: x, 1: y}", "1", "line 2"),
        ("base: &b {a: 1}\nown:\n  <<: *b\n  <<: *b\n", "<<", "lines 3 and 4"),
    ],
)
def test_a_key_given_twice_is_refused_with_its_lines(text, key, lines):
    with pytest.raises(UserError, match=rf"^here has the key '{key}' twice \({lines}\)$"):
        parse_yaml(text, "here")


def test_a_key_may_replace_a_merged_one_and_recur_elsewhere():
    text = "base: &b {a: 1, c: 2}\nown: {<<: *b, a: 3}\nother: {a: 4}\n"
    assert parse_yaml(text, "here")["own"] == {"a": 3, "c": 2}


PLAIN = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(st.characters(exclude_categories=["C", "Zl", "Zp"])),
        st.from_regex(r"\A[-+0-9.:_eExoyYnN]{1,8}\Z"),
        st.sampled_from(["1e6", "12:30", "0o7", "no", "2026-01-31", "~", "<<", "=", "1_0", ".e1"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["a", "1e6", "12:30", "on", ""]), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(PLAIN)
def test_what_is_written_is_read_back_and_by_readers_of_yaml_1_1(value):
    text = dump_yaml(value)
    assert parse_yaml(text, "here") == value
    assert yaml.safe_load(text) == value


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("NESTED", "~/data")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "home")


def test_paths_are_expanded_as_a_shell_does(home):
    assert expand("~") == home
    assert expand("~/x y.pt") == f"{home}/x y.pt"
    assert expand(Path("~/x")) == f"{home}/x"
    assert expand("$SCRATCH/x") == expand("${SCRATCH}/x") == "/scratch/me/x"
    assert expand("/a/$SCRATCH.d") == "/a//scratch/me.d"
    assert expand("s3://bucket/$SCRATCH") == "s3://bucket//scratch/me"
    assert expand("$NESTED/x") == f"{home}/data/x"
    assert expand(f"~{getpass.getuser()}") == os.path.expanduser(f"~{getpass.getuser()}")
    for as_it_is in ("a~b", "./~x", "a$", "5$/x", "a$5", "", "table"):
        assert expand(as_it_is) == as_it_is
    given = {"file": "~/a", "width": 4, "of": ["$SCRATCH", {"b": "x$SCRATCH"}]}
    assert expand_in(given) == {
        "file": f"{home}/a", "width": 4, "of": ["/scratch/me", {"b": "x$SCRATCH"}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("$UNSET/x", "variable UNSET is not set"),
        ("${EMPTY}/x", "variable EMPTY is not set"),  # else everything would be written to /x
        ("~nobody.of.this.name/x", "no user 'nobody.of.this.name'"),
    ],
)
def test_what_cannot_be_expanded_is_refused_unless_it_is_there(path, why, home, tmp_path):
    with pytest.raises(UserError, match=why):
        expand(path)
    (tmp_path / path).mkdir(parents=True)
    assert expand(path) == path
