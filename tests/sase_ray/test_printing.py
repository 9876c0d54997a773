"""Tables in terminals of any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from sase_ray import printing

HEADS = ("module by", "accuracy", "device\ns", "parameters")
ROWS = [("darts-2nd", "80.02", "167", "19,893"), ("none", "78.83", "0", "19,074")]


def lines_at(width, monkeypatch):
    written = io.StringIO()
    console = Console(file=written, width=width)
    monkeypatch.setattr(printing, "console_for_tables", lambda: console)
    table = Table(*HEADS)
    for row in ROWS:
        table.add_row(*row)
    printing.print_wide(table)
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
