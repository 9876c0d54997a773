"""What a report is made of: sections of sentences, tables, figures and code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Text:
    """A paragraph; what stands between backticks is code."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column holds names, the others are set to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str


@dataclass(frozen=True)
class Shown:
    """A figure.

    Attributes:
        figure: of matplotlib.
        name: of its file, unique in the report.
        caption: what it shows.
        wide: whether it needs the whole width of a page.
        least: width in rem, below which it is not read: a smaller screen scrolls it.
        folded: what a page calls it, and shows it only to who opens it; None shows it at once.
    """

    figure: Figure
    name: str
    caption: str
    wide: bool = False
    least: int = 0
    folded: str | None = None


@dataclass(frozen=True)
class Code:
    """Text that is to be copied, or looked up.

    Attributes:
        text: the lines.
        summary: of what is folded away; None for what is shown at once.
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
