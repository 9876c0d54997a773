"""Printing of sentences and tables to the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print text as it is, without interpreting markup or breaking lines."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def console_for_tables() -> Console:
    """Return a console that does not break tables when they are piped into a file or grep."""
    console = Console()
    return console if console.is_terminal else Console(width=240)


def print_wide(table: Table) -> None:
    """Print a table; in a terminal too narrow for it, leave out its last columns."""
    console = console_for_tables()
    for column in table.columns:
        column.no_wrap = True
    left_out = []
    while len(table.columns) > 1 and _width(table, console) > console.width:
        left_out.append(" ".join(str(table.columns.pop().header).split()))
    console.print(table)
    if left_out:
        names = ", ".join(reversed(left_out))
        say(console, f"(a wider terminal shows: {names})", style="dim")


def _width(table: Table, console: Console) -> int:
    unbounded = console.options.update(width=10_000)
    return Measurement.get(console, unbounded, table).maximum


def print_catalogue(
    head: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None
) -> None:
    """Print rows of texts."""
    table = Table(*head, title=title)
    for row in rows:
        table.add_row(*map(escape, row))
    console_for_tables().print(table)
