"""The documentation, held against the program: links, commands, code, names of files, lengths."""

from __future__ import annotations

import inspect
import re
import shlex
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
import typer

import sase_ray
from sase_ray.cli.app import app
from sase_ray.cli.options import CLUSTER, FOLDER, OPTIONS, PROBLEM, SEARCH, load_settings
from sase_ray.protocols import experiments
from sase_ray.strategies.catalogue import make_strategy
from search_spaces.backbones.registry import BACKBONES
from search_spaces.baselines import BASELINES
from search_spaces.space import space_names
from trainables.data.registry import DATASETS

ROOT = Path(__file__).parents[1]
GUIDE = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES = [
    *GUIDE,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("benchmarks/*.md")),
    *sorted(ROOT.glob("results/*.md")),
    *sorted(ROOT.glob("results/reference/**/*.md")),
]
MAX_LINES = 200
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:sase-ray|python -m sase_ray) +([a-z].*)")
PLACEHOLDER = re.compile(r"<\w+>|\.\.\.|\b[A-Z]{3,}\b")
COMMANDS = typer.main.get_command(app)


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(page, language):
    """Return the fenced blocks of a page in a language, without their indentation."""
    found = []
    for indent, named, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if named == language:
            found.append(re.sub(rf"^{indent}", "", text, flags=re.MULTILINE))
    return found


def prose(page):
    """Return the text of a page outside its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def slugs(page):
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page):
    """Return the argument lists of every call of sase-ray, in blocks and within sentences."""
    lines = [
        line
        for language in ("", "sh", "bash")
        for block in blocks(page, language)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]
    found = []
    for line in lines:
        for call in COMMAND.findall(line.partition(" #")[0].replace(r"\|", "|")):
            first, *others = call.split(" | ")
            # A sentence writes N for a number.
            words = ["1" if word == "N" else word for word in shlex.split(first)]
            found += [words, *([other.strip()] for other in others)]
    return found


@pytest.mark.parametrize("page", GUIDE, ids=name_of)
def test_a_page_is_short(page):
    assert len(page.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        if not linked.exists() or (anchor and anchor not in slugs(linked)):
            wrong.append(target)
    assert not wrong


def test_the_readme_links_every_page():
    linked = set(re.findall(r"\]\((docs/\w+\.md)\)", prose(GUIDE[0])))
    assert linked == {name_of(page) for page in GUIDE[1:]}


def test_every_command_is_shown():
    assert {arguments[0] for page in GUIDE for arguments in commands(page)} == {*COMMANDS.commands}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_files_exist(page):
    kinds = "sase_ray|trainables|search_spaces|tests|deploy|benchmarks|docs|results/reference"
    named = re.findall(rf"`((?:{kinds})/[\w./-]*)`", prose(page))
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page):
    targets = re.findall(r"^(\S+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    text = "\n".join([*re.findall(r"`([^`]+)`", prose(page)), *blocks(page, "")])
    named = re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)
    assert not [name for name in named if name not in targets]


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem != "CHANGELOG"], ids=name_of)
def test_commands_are_accepted(page):
    for arguments in commands(page):
        name, *given = arguments
        assert name in COMMANDS.commands, arguments
        command = COMMANDS.commands[name]
        if not given and any(p.required for p in command.params):
            continue  # a mention of the command by its name
        parsed = command.make_context(name, list(given)).params
        check_names(parsed)
        check_settings(parsed)


def check_names(parsed):
    """Look up every name that a command line gives; raises UserError for one that is not there."""
    for key, catalogue in (("dataset", DATASETS), ("backbone", BACKBONES)):
        if parsed.get(key) and not PLACEHOLDER.search(parsed[key]):
            catalogue.find(parsed[key])
    if parsed.get("space") and not PLACEHOLDER.search(parsed["space"]):
        assert parsed["space"] in space_names() or parsed["space"].endswith(".yaml")
    for strategy in filter(None, [parsed.get("strategy"), *listed(parsed, "strategies")]):
        make_strategy(strategy)
    for baseline in listed(parsed, "baselines"):
        BASELINES.find(baseline)
    config = str(parsed.get("config") or "")
    assert not config or config.endswith(".yaml") or config in experiments()


def listed(parsed, key):
    return [name for name in (parsed.get(key) or "").split(",") if name]


def check_settings(parsed):
    """Build the configuration of a command line; raises UserError for a wrong key or value."""
    shared = (*PROBLEM, *SEARCH, *FOLDER, *CLUSTER)
    given = {key: parsed.get(key) for key in shared if not PLACEHOLDER.search(str(parsed.get(key)))}
    if given.get("config") and str(given["config"]).endswith(".yaml"):
        del given["config"]  # a file of the reader's own
    if given.get("assignments"):
        given["assignments"] = [t for t in given["assignments"] if not PLACEHOLDER.search(t)]
    settings = load_settings(**given)
    for strategy, options in settings.strategy_options.items():
        make_strategy(strategy, options)


def test_shared_options_are_all_checked():
    assert {*PROBLEM, *SEARCH, *FOLDER, *CLUSTER} == {*OPTIONS}


@pytest.mark.parametrize(
    ("page", "code"),
    [(page, code) for page in PAGES for code in blocks(page, "python")],
    ids=lambda value: name_of(value) if isinstance(value, Path) else "",
)
def test_code_runs(page, code, monkeypatch):
    """Every block runs; only what takes minutes is checked by its signature."""
    stand_ins = []
    for name, kind in (("compare", sase_ray.Comparison), ("adapt", sase_ray.Adapted)):
        names = [field.name for field in fields(kind)]
        names += [name for name in vars(kind) if not name.startswith("_")]
        result = SimpleNamespace(**dict.fromkeys(names))
        stand_ins.append(create_autospec(getattr(sase_ray, name), return_value=result))
        monkeypatch.setattr(sase_ray, name, stand_ins[-1])
    monkeypatch.chdir(ROOT)
    # With a module of its own, as a registered operation names where it is from.
    exec(compile(code, str(page), "exec"), {"__name__": "example"})
    compared, adapted = (stand_in.call_args_list for stand_in in stand_ins)
    for call in compared:
        sase_ray.load_config(None, call.kwargs)
    for call in adapted:
        own = inspect.signature(sase_ray.adapt).parameters
        sase_ray.load_config(None, {k: v for k, v in call.kwargs.items() if k not in own})
