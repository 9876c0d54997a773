"""Tables in terminals of any width."""

from __future__ import annotations

import io
import shlex

import pytest
from rich.console import Console
from rich.table import Table

from sase_ray import console as console_module
from sase_ray.cli import output
from sase_ray.commands.search import SearchReport
from search_spaces.genotype import Genotype

HEADS = ("module by", "accuracy", "device\ns", "parameters")
ROWS = [("darts-2nd", "80.02", "167", "19,893"), ("none", "78.83", "0", "19,074")]


def lines_at(width, monkeypatch):
    written = io.StringIO()
    console = Console(file=written, width=width)
    monkeypatch.setattr(console_module, "console_for_tables", lambda: console)
    table = Table(*HEADS)
    for row in ROWS:
        table.add_row(*row)
    console_module.print_wide(table)
    return written.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 30, 40, 50, 80])
def test_every_column_is_whole_or_named_below(width, monkeypatch):
    lines = lines_at(width, monkeypatch)
    text = "\n".join(lines)
    assert "…" not in text
    named = lines[-1].removeprefix("(a wider terminal shows: ").removesuffix(")").split(", ")
    for number, head in enumerate(HEADS):
        cells = [row[number] for row in ROWS]
        assert all(cell in text for cell in cells) or " ".join(head.split()) in named


def test_a_wide_terminal_shows_all(monkeypatch):
    lines = lines_at(80, monkeypatch)
    assert not any("wider" in line for line in lines)
    assert all(cell in "\n".join(lines) for row in ROWS for cell in row)


def printed_search(genotype, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    written = io.StringIO()
    report = SearchReport(
        folder, genotype, [(genotype, -6.5), (genotype, -6.75)], "log-probability", outcome=None
    )
    output.print_search(Console(file=written, width=80), report)
    return written.getvalue()


def test_scores_stay_readable_where_every_stage_has_its_own_genotype(tmp_path, monkeypatch):
    genotype = Genotype(("gap_gmp", "affine", "affine", "gap_std", "gap_std", "affine") * 3)
    text = printed_search(genotype, tmp_path / "run", monkeypatch)
    assert "-6.5000" in text
    assert "-6.7500" in text
    assert [f"stage {stage}:" in text for stage in range(4)] == [True, True, True, False]


def test_commands_of_a_search_can_be_pasted(tmp_path, monkeypatch):
    genotype = Genotype(("gap", "conv3", "affine", "gap", "gap", "conv3x3"))
    text = printed_search(genotype, tmp_path / "out dir", monkeypatch)
    commands = [shlex.split(line) for line in text.splitlines() if "--" in line]
    assert ["--config", "out dir/config.yaml"] in [words[-2:] for words in commands]
    assert ["--logdir", "out dir/tensorboard"] in [words[-2:] for words in commands]
