"""Style of all figures: colours, lines, direct labels, and SVG that follows the page's theme.

Colours are those of Okabe and Ito (Color Universal Design, 2008), which colour-blind readers can
distinguish; lines of one colour differ in their dashes and markers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from itertools import cycle, islice, product
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sase_ray.config import RANDOM_SEARCH
from sase_ray.console import make_console, say
from search_spaces.errors import UserError, shorten

INK, MUTED, GRID, PAPER = "#1a1a1a", "#666666", "#dcdcdc", "#ffffff"
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

LONGEST_LABEL = 28
"""Maximum number of characters of a name in a figure."""

LIGHT: Mapping[str, str] = {
    "ink": INK, "muted": MUTED, "grid": GRID, "paper": PAPER,
    **{f"hue{i}": hue for i, hue in enumerate(HUES)},
}  # fmt: skip
DARK: Mapping[str, str] = {
    "ink": "#e8e8e8", "muted": "#a3a3a3", "grid": "#3a3d42", "paper": "#16181c",
    "hue0": "#5fb0ea", "hue1": "#ff8c42", "hue2": "#35c99d", "hue3": "#e6a3c9",
    "hue4": "#8fd0f7", "hue5": "#f5bd3d",
}  # fmt: skip
"""Colours of the roles of `LIGHT` on a dark page, with a contrast of at least 3 to its paper."""

_ROLES = {colour: role for role, colour in LIGHT.items()}
_RC: Any = {
    "font.family": "sans-serif",
    # All have the same widths, so that labels fit on every reader's machine; the last comes with
    # matplotlib.
    "font.sans-serif": ["Arial", "Helvetica", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.prop_cycle": cycler(color=HUES),
    "figure.facecolor": PAPER,
    "figure.dpi": 110,
    "axes.facecolor": "none",
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    # Names come from users: a dollar sign in them does not begin a formula.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "savefig.dpi": 160,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save figures in the project's style inside the block, whatever a user's style is."""
    with mpl.rc_context():
        use_style()
        yield


@contextmanager
def attempted(what: str) -> Iterator[None]:
    """Draw in the project's style; a failure is reported, and costs no more than the figure.

    A function that it decorates returns None then.

    Args:
        what: Name of the figure.

    Raises:
        UserError: The data are wrong, or the figure cannot be stored.
    """
    try:
        with styled():
            yield
    except UserError:
        raise
    except Exception as error:  # matplotlib and what it calls, such as LaTeX, raise any
        report_failure(what, error)


def report_failure(what: str, error: Exception) -> None:
    """Print why a figure could not be drawn."""
    first = shorten((str(error).strip() or "no reason given").splitlines()[0])
    name = type(error).__name__
    say(make_console(stderr=True), f"figure {what!r} could not be drawn: {name}: {first}")


def use_style() -> None:
    """Draw all further figures in the project's style, for notebooks."""
    mpl.rcdefaults()  # also without the settings of a matplotlibrc, such as text.usetex
    mpl.rcParams.update(_RC)


def new_figure(width: float = 5.0, height: float = 3.1) -> Figure:
    """Return an empty figure; call this function, and draw on it, within `styled` or `attempted`.

    Args:
        width: Width in inches; 5 is readable on a phone and in a column of a paper.
        height: Height in inches.
    """
    return Figure(figsize=(width, height), layout="constrained")


@dataclass(frozen=True)
class Look:
    """Look of a strategy in all figures."""

    color: str
    dash: Any
    marker: str
    filled: bool = True

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of `Axes.plot` for the strategy's line."""
        return {"color": self.color, "linestyle": self.dash}


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Give each strategy its own look: random search a neutral one, the others a hue."""
    names = list(dict.fromkeys(names))
    hued = [name for name in names if name.split(" · ")[-1] != RANDOM_SEARCH]
    styles = islice(cycle(product(DASHES, HUES)), len(hued))
    found = {
        name: Look(hue, dash, MARKERS[i % len(MARKERS)])
        for i, (name, (dash, hue)) in enumerate(zip(hued, styles, strict=True))
    }
    return {name: found.get(name, Look(MUTED, DASHES[1], "o")) for name in names}


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart, no farther than needed, and keep their order.

    Args:
        places: Wanted place of each label.
        gap: Smallest distance between two labels.
        low: Lowest place of a label.
        high: Highest place of a label, if there is room for all.
    """
    order = np.argsort(places, kind="stable")
    gap = min(gap, (high - low) / max(1, len(places) - 1))
    # Least squares with a minimum gap: subtract the gaps, then apply isotonic regression.
    from scipy.optimize import isotonic_regression

    offsets = gap * np.arange(len(places))
    even = np.asarray(places, dtype=float)[order] - offsets
    fitted = isotonic_regression(even).x if len(even) else even
    fitted = np.clip(fitted, low, high - (offsets[-1] if len(places) else 0)) + offsets
    moved = np.empty(len(places))
    moved[order] = fitted
    return [float(place) for place in moved]


def label_of(name: str) -> str:
    """Return a name as figures show it: only its beginning if it is long."""
    return name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…"


def label_ends(
    figure: Figure,
    ends: Sequence[tuple[Axes, float, str, Look]],
    size: float = 8,
    *,
    points: bool = False,
) -> None:
    """Write names at the right of axes, each next to the end of its line, without overlap.

    Args:
        figure: Figure of the axes, which have their final limits.
        ends: Axes, last y, name and look of each line.
        size: Size of the text in points.
        points: Whether these are points, whose markers precede their names, instead of lines.
    """
    figure.draw_without_rendering()  # so that the axes have their sizes
    for axes in dict.fromkeys(axes for axes, *_ in ends):
        own = [(y, name, look) for at, y, name, look in ends if at is axes]
        height = axes.get_window_extent().height / figure.dpi * 72
        to_axes = axes.transData + axes.transAxes.inverted()
        places = [float(to_axes.transform((axes.get_xlim()[1], y))[1]) for y, *_ in own]
        moved = spread(places, 1.15 * size / height, 0.02, 0.98)
        for place, label, (_, name, look) in zip(places, moved, own, strict=True):
            to: Any = {"transform": axes.transAxes, "clip_on": False}
            colour = GRID if points else look.color
            axes.plot([1.005, 1.035, 1.06], [place, label, label], color=colour, linewidth=1, **to)
            if points:
                face = look.color if look.filled else "none"
                axes.plot(
                    1.08, label, look.marker, color=look.color, markerfacecolor=face,
                    markersize=0.6 * size, **to,
                )  # fmt: skip
            left = 1.11 if points else 1.07
            axes.text(left, label, label_of(name), va="center", fontsize=size, **to)


def to_svg(figure: Figure, title: str) -> str:
    """Return a figure as an `<svg>` element for a page; its text stays text.

    Colours of the style become CSS variables (`var(--ink, ...)`), so that the page's theme decides.

    Args:
        figure: Figure drawn within `styled`.
        title: Title of the figure; the same title gives the same identifiers in the SVG.
    """
    salt = sha256(title.encode()).hexdigest()[:8]
    stream = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with styled(), mpl.rc_context({"svg.hashsalt": salt}):
        figure.savefig(stream, format="svg", metadata=nothing, transparent=True)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Groups have the same names in every figure, and nothing refers to them.
    svg = re.sub(r'<g id="\w+">', "<g>", svg)
    svg = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", _themed, svg)
    # Without a colour, elements are black, which cannot be seen on a dark page.
    width, height = figure.get_size_inches() * 72
    return re.sub(
        r"<svg [^>]*>",
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" aria-hidden="true" fill="currentColor">',
        svg,
        count=1,
    )


def _themed(match: re.Match[str]) -> str:
    role = _ROLES.get(match[2])
    return f"{match[1]}: var(--{role}, {match[2]})" if role else match[0]


def theme(colours: Mapping[str, str]) -> str:
    """Return the CSS declarations of `LIGHT` or `DARK`."""
    return " ".join(f"--{role}: {colour};" for role, colour in colours.items())
