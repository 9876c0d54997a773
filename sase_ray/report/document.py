"""Parts of a report: sections of sentences, tables, figures and code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Text:
    """A paragraph; text between backticks is code."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column holds names, the others are right-aligned."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str


@dataclass(frozen=True)
class Shown:
    """A figure with its caption.

    Attributes:
        figure: Figure of matplotlib.
        name: Name of its file, unique in the report.
        caption: Description of what it shows.
        wide: Whether it needs the whole width of a page.
        least: Minimum width in rem at which it is readable: a smaller screen scrolls it.
        folded: Label under which a page folds it until it is opened; None shows it at once.
    """

    figure: Figure
    name: str
    caption: str
    wide: bool = False
    least: int = 0
    folded: str | None = None


@dataclass(frozen=True)
class Code:
    """Text to be copied or looked up.

    Attributes:
        text: Lines of the text.
        summary: Label under which a page folds it until it is opened; None shows it at once.
    """

    text: str
    summary: str | None = None


Part = Text | Table | Shown | Code


@dataclass(frozen=True)
class Section:
    """A question of the report, and its answer."""

    key: str
    title: str
    parts: list[Part] = field(default_factory=list)
