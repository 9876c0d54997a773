"""Catalogues: what files declare, found without importing them."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from sase_ray.strategies.registry import STRATEGIES
from search_spaces.backbones.registry import BACKBONES
from search_spaces.baselines import BASELINES
from search_spaces.catalogue import Catalogue
from search_spaces.declarations import Decorated, Subclassed
from search_spaces.errors import UserError
from search_spaces.ops.registry import OPERATIONS
from trainables.data.registry import DATASETS
from trainables.scores.registry import SCORES
from trainables.tasks.registry import TASKS

REGISTRY = """
import fruit
def pick(name, *, colour, summary="", variants=({},)):
    def enter(function):
        for variant in variants:
            own = name.format(**variant) if variant else name
            fruit.CATALOGUE.enter(own, (own, function), function)
        return function
    return enter
class Fruit:
    def __init_subclass__(cls):
        if "name" in vars(cls):
            fruit.CATALOGUE.enter(cls.name, cls, cls)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Make an importable package `fruit`; returns what writes a file of it."""
    package = tmp_path / "fruit"
    package.mkdir()
    (package / "__init__.py").write_text("CATALOGUE = None\n")
    (package / "registry.py").write_text(REGISTRY)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, text: str) -> Path:
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text(textwrap.dedent(text))
        return package / name

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "fruit"]:
        del sys.modules[name]


def catalogue(form):
    import fruit

    fruit.CATALOGUE = Catalogue("fruit", "fruit", form, also=("any nut",))
    return fruit.CATALOGUE


APPLE = """
    from fruit.registry import pick
    COLOUR = "red"
    @pick("apple", colour=COLOUR)
    def apple():
        \"\"\"Grows on trees.

        In Kent.
        \"\"\"
"""


def test_only_the_file_of_the_wanted_entry_is_imported(folder):
    folder("apple.py", APPLE)
    folder("below/pear.py", "from fruit.registry import pick\n@pick('pear', colour='green')\n"
           "def pear(): ...\n")  # fmt: skip
    folder("other.py", "raise RuntimeError('imported')\n")
    fruits = catalogue(Decorated("pick"))
    assert list(fruits) == ["apple", "pear"]
    assert fruits.table("name", "colour", "summary") == [
        ("apple", "red", "Grows on trees."),
        ("pear", "green", ""),
    ]
    assert not {"fruit.apple", "fruit.below.pear"} & sys.modules.keys()
    assert fruits.find("pear")[0] == "pear"
    assert "fruit.apple" not in sys.modules
    assert [name for name, _ in fruits.entries()] == ["apple", "pear"]


def test_variants_are_entries_of_their_own(folder):
    folder("plum.py", """
        from fruit.registry import pick
        @pick("plum{size}", colour="of size {size}",
              variants=[{"size": 3, "more": (1, 2)}, {"size": 5, "more": ()}])
        def plum(): ...
    """)  # fmt: skip
    fruits = catalogue(Decorated("pick"))
    assert fruits.table("name", "colour") == [("plum3", "of size 3"), ("plum5", "of size 5")]
    assert fruits.find("plum5")[0] == "plum5"


@pytest.mark.parametrize(
    "text",
    [
        "from fruit.registry import pick\nfor n in 'ab':\n    @pick(n, colour='')\n"
        "    def f(): ...",
        "from fruit.registry import pick\npick('a', colour='')(print and (lambda: 0))\n"
        "pick('b', colour='')(lambda: 0)",
        "from fruit.registry import pick as p\n@p('a', colour='')\ndef f(): ...\n"
        "@p('b', colour='')\ndef g(): ...",
        "import fruit.registry as r\n@r.pick(str('a'), colour='')\ndef f(): ...\n"
        "@r.pick('b', colour='')\ndef g(): ...",
    ],
    ids=["loop", "call", "alias", "computed"],
)
def test_what_the_source_does_not_tell_is_found_by_importing(folder, text):
    folder("made.py", text)
    fruits = catalogue(Decorated("pick"))
    assert set(fruits) == {"a", "b"}
    assert fruits.find("a")[0] == "a"
    assert "b" in fruits


def test_classes_inherit_what_they_do_not_say(folder):
    folder("base.py", """
        from fruit.registry import Fruit
        class Citrus(Fruit):
            taste = "sour"
            colour = "yellow"
    """)  # fmt: skip
    folder("orange.py", """
        from typing import ClassVar
        from fruit.base import Citrus
        class Orange(Citrus):
            name: ClassVar[str] = "orange"
            summary: ClassVar[str] = "round"
            colour = "orange"
        class Helper:
            name = "no fruit"
    """)  # fmt: skip
    fruits = catalogue(Subclassed())
    assert fruits.table("name", "taste", "colour", "summary") == [
        ("orange", "sour", "orange", "round")
    ]
    assert not {"fruit.base", "fruit.orange"} & sys.modules.keys()
    assert fruits.find("orange").taste == "sour"


def test_a_column_that_is_computed_is_read_off_the_entry(folder):
    folder("base.py", """
        from fruit.registry import Fruit
        class Lime(Fruit):
            name = "lime"
            summary = "sour"
            price = 2 * 21
    """)  # fmt: skip
    assert catalogue(Subclassed()).table("name", "price") == [("lime", 42)]


def test_an_unknown_name_gets_the_nearest(folder):
    folder("apple.py", APPLE)
    with pytest.raises(UserError, match=r"unknown fruit 'aple': did you mean 'apple'\? .*any nut"):
        catalogue(Decorated("pick")).find("aple")


def test_a_name_is_taken_once_even_before_its_file_is_imported(folder):
    folder("apple.py", APPLE)
    fruits = catalogue(Decorated("pick"))

    def another(): ...

    with pytest.raises(UserError, match="fruit 'apple' is already registered"):
        fruits.enter("apple", None, another)
    fruits.enter("nut", 1, another)
    fruits.enter("nut", 2, another)  # the same, defined again
    assert fruits.find("nut") == 2
    assert list(fruits) == ["apple", "nut"]
    assert len(fruits) == 2
    with pytest.raises(UserError, match="fruit 'nut' is already registered"):
        fruits.enter("nut", 3, folder)


def test_a_file_that_does_not_enter_what_it_declares_is_named(folder):
    folder("fake.py", "class Fake:\n    name = 'fake'\n    summary = 'a fake'\n")
    with pytest.raises(UserError, match=r"fruit\.fake declares fruit 'fake', but does not enter"):
        catalogue(Subclassed()).find("fake")


def test_a_further_folder_of_the_package_is_looked_through(folder, tmp_path, monkeypatch):
    folder("apple.py", APPLE)
    fruits = catalogue(Decorated("pick"))
    assert list(fruits) == ["apple"]
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "fig.py").write_text(textwrap.dedent(APPLE).replace("apple", "fig"))
    monkeypatch.setattr("fruit.__path__", [str(tmp_path / "fruit"), str(tmp_path / "more")])
    assert list(fruits) == ["apple", "fig"]
    assert fruits.find("fig")[0] == "fig"


ALL = {
    "operations": OPERATIONS["channel_squeeze"], "backbones": BACKBONES, "baselines": BASELINES,
    "data sets": DATASETS, "tasks": TASKS, "scores": SCORES, "strategies": STRATEGIES,
}  # fmt: skip


@pytest.mark.parametrize("catalogue", ALL.values(), ids=ALL)
def test_the_source_tells_what_importing_tells(catalogue):
    columns = ["name", "summary", *(["source"] if catalogue is not TASKS else [])]
    rows = catalogue.table(*columns)
    assert rows
    assert rows == [tuple(getattr(e, c) for c in columns) for e in catalogue.entries()]
    assert not catalogue._declared().computed
