"""Printing of sentences and tables to the terminal."""

from __future__ import annotations

import codecs
import sys
import unicodedata
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

_NEAREST = "sase_ray.nearest"
_DRAWN = str.maketrans("─│┬├┐└┘◀→–−×·…", "-|+++++<>--*..")


def _nearest(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return the nearest characters for one that a stream cannot encode, each as wide."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is not UTF-8
        return bytes([ord(character) - 0xDC00]), error.start + 1
    plain = unicodedata.normalize("NFKD", character.translate(_DRAWN))[0]
    try:
        plain.encode(error.encoding)
    except UnicodeEncodeError:
        plain = "?"
    return plain, error.start + 1


codecs.register_error(_NEAREST, _nearest)


def make_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return a console that prints anything on a terminal or pipe of any encoding."""
    stream = sys.stderr if stderr else sys.stdout
    if getattr(stream, "errors", None) in ("strict", "surrogateescape"):
        reconfigure = getattr(stream, "reconfigure", lambda **_: None)  # a notebook's has none
        reconfigure(errors=_NEAREST)
    return Console(stderr=stderr, width=width)


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print text as it is, without interpreting markup or breaking lines."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def console_for_tables() -> Console:
    """Return a console that does not break tables when they are piped into a file or grep."""
    console = make_console()
    return console if console.is_terminal else make_console(width=240)


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
