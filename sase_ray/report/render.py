"""Rendering of a report's sections as one HTML page, as Markdown, or as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jinja2
from markupsafe import Markup, escape

from sase_ray.figures.style import DARK, LIGHT, attempted, theme, to_svg
from sase_ray.report.combine import check_size, labels_of
from sase_ray.report.document import Section, Shown, Table
from sase_ray.report.sections import sections_of
from sase_ray.results.load import Run, load_run
from search_spaces.errors import UserError, unknown_name
from search_spaces.user_paths import user_path
from trainables.persistence.store import StorageError, write_whole

Format = Literal["html", "md", "latex"]
MOST_RUNS = 8
_ENDING: dict[str, str] = {"html": "html", "md": "md", "latex": "tex"}
_LONG = 40
"""Number of characters of a word or cell that is longer than any in a column of numbers."""

_TEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "–": "--", "−": "--", "·": r"\textperiodcentered{}", "<": r"\textless{}",
    ">": r"\textgreater{}", **{c: rf"\{c}" for c in "&%$#_{}"},
}  # fmt: skip


def write_report(
    runs: Sequence[str | Path], form: Format = "html", output: str | Path | None = None
) -> Path:
    """Write the report of a run, or one that compares several runs.

    Args:
        runs: Folders of the runs.
        form: Format: html (one page without other files), md or latex (with a folder of figures
            next to the file, SVG or PDF).
        output: File to write; by default `report.html` (for several runs `comparison.html`) in the
            first run's folder, with the ending of the format.

    Returns:
        Path of the file.

    Raises:
        UserError: A run cannot be read, or the file cannot be written.
    """
    if form not in get_args(Format):
        raise unknown_name("format", form, get_args(Format))
    if not 1 <= len(runs) <= MOST_RUNS:
        raise UserError(f"a report is of 1 to {MOST_RUNS} runs, not of {len(runs)}")
    loaded = [load_run(run) for run in runs]
    for run in loaded:
        check_size(run)
    name = "report" if len(loaded) == 1 else "comparison"
    path = user_path(output) if output else loaded[0].path / f"{name}.{_ENDING[form]}"
    sections = sections_of(loaded)
    figures = path.with_name(f"{path.stem}_figures")
    try:
        if form != "html":
            figures.mkdir(exist_ok=True)
            _write_figures(sections, figures, "svg" if form == "md" else "pdf")
        text = render(loaded, sections, form, figures.name)
        write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    except StorageError:  # its message is already complete
        raise
    except (OSError, ValueError) as error:  # ValueError: the path has a null character
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be written: {reason}") from None
    return path


def render(runs: Sequence[Run], sections: Sequence[Section], form: Format, figures: str) -> str:
    """Return the text of the page or file.

    Args:
        runs: Runs of the report.
        sections: Result of `sections_of`.
        form: Format: html, md or latex.
        figures: Name of the folder of figures, for md and latex.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sase_ray.report"),
        autoescape=form == "html",  # noqa: S701 - Markdown and LaTeX escape by filters
        trim_blocks=form != "html",
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "kind": lambda part: type(part).__name__,
        "svg": _svg,
        "md": _markdown,
        "tex": _tex,
        "cell": _tex_cell,
        "columns": _tex_columns,
        "prose": _PROSE[form],
    }
    title = " and ".join(labels_of(runs)) if len(runs) < 4 else f"{len(runs)} runs"
    return environment.get_template(f"report.{_ENDING[form]}.j2").render(
        title=f"Search for attention modules: {title}",
        facts=[_facts(run, label) for run, label in zip(runs, labels_of(runs), strict=True)],
        sections=sections,
        light=theme(LIGHT),
        dark=theme(DARK),
        figures=figures,
    )


def _facts(run: Run, label: str) -> str:
    """Return one line on a run's data set, host, space, budget, searches, machine and date."""
    config = run.config

    def of(key: str) -> Any:
        return config.get(key, "?")

    host = of("backbone")
    host = host.get("name", "?") if isinstance(host, dict) else host
    budget = f"{of('budget'):,}" if isinstance(of("budget"), int) else of("budget")
    hardware = run.recorded.hardware
    where = hardware.get("gpu") or hardware.get("processor") or ""
    begun = str(run.recorded.run.get("started", ""))[:10]
    return " · ".join(
        str(fact)
        for fact in (
            label, f"data set {of('dataset')}", f"host {host}", f"space {of('space')}",
            f"{budget} training samples a search",
            f"{of('seeds')} search{'es' * (of('seeds') != 1)} a strategy",
            where, begun,
        )
        if fact
    )  # fmt: skip


def _write_figures(sections: Sequence[Section], folder: Path, ending: str) -> None:
    shown = [part for section in sections for part in section.parts if isinstance(part, Shown)]
    for part in shown:
        with attempted(part.name):
            part.figure.savefig(folder / f"{part.name}.{ending}")


def _svg(part: Shown) -> Markup:
    svg = ""
    with attempted(part.name):
        svg = to_svg(part.figure, part.name)  # texts are escaped in it
    return Markup(  # noqa: S704
        svg.replace("<svg ", f'<svg style="min-width: {part.least}rem" ', 1)
    )


def _code(escaped: Callable[[str], str], begin: str, end: str) -> Callable[[str], Markup]:
    """Return a filter that escapes a text and marks the code between backticks."""

    def mark(text: str) -> Markup:
        pieces = text.split("`")
        return Markup(  # noqa: S704 - each piece is escaped
            "".join(
                f"{begin}{escaped(piece)}{end}" if i % 2 else escaped(piece)
                for i, piece in enumerate(pieces)
            )
        )

    return mark


def _markdown(text: str) -> str:
    """Escape characters that have a meaning in Markdown or in HTML inside it."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~$&])", r"\\\1", re.sub(r"\s+", " ", str(text)))


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in re.sub(r"\s+", " ", str(text)))


def _tex_cell(text: str) -> str:
    """Escape a cell; a leading hyphen becomes a minus, and long words, as of digests, may break."""
    words = (
        r"\allowbreak{}".join(map(_tex, re.findall(".{1,16}", word)))
        if len(word) > _LONG
        else _tex(word)
        for word in str(text).split()
    )
    return re.sub(r"^-(?=[0-9.])", "$-$", " ".join(words))


def _tex_columns(table: Table) -> str:
    """Return the LaTeX specification of the columns after the first: numbers, or one of texts."""
    if len(table.head) == 2 and any(len(str(row[1])) > _LONG for row in table.rows):
        return r">{\raggedright\arraybackslash}p{0.65\textwidth}"
    return "r" * (len(table.head) - 1)


_PROSE: dict[str, Callable[[str], Markup]] = {
    "html": _code(lambda text: str(escape(text)), "<code>", "</code>"),
    "md": _code(_markdown, "<code>", "</code>"),
    "latex": _code(_tex, r"\texttt{", "}"),
}
