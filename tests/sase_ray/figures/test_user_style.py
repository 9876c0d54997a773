"""Figures do not depend on a user's style of matplotlib, and one that fails costs nothing else."""

from __future__ import annotations

import os
import sys

import matplotlib as mpl
import pandas as pd
import pytest
from cycler import cycler
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sase_ray.cli import app
from sase_ray.figures import architecture, gradcam, outcomes, style
from sase_ray.figures.block import draw_block
from sase_ray.figures.regret import save_figure
from sase_ray.figures.tensorboard_images import draw_alpha, pixels_of
from sase_ray.monitoring.tensorboard_summary import write_summaries
from sase_ray.report import write_report
from sase_ray.results.load import load_run
from search_spaces.errors import UserError
from search_spaces.genotype import PUBLISHED

ALPHA = {"refine_excite": [0.25, 0.75]}, {"refine_excite": ["fc", "affine"]}
HOSTILE = {
    "text.usetex": True,
    "font.family": "none of this name",
    "figure.autolayout": True,
    "figure.facecolor": "black",
    "savefig.bbox": "tight",
    "savefig.transparent": True,
    "svg.fonttype": "path",
    "axes.prop_cycle": cycler(color=["red"]),
    "axes.formatter.use_locale": True,
    "image.cmap": "jet",
    "lines.linewidth": 9,
    "xtick.minor.visible": True,
}


@pytest.mark.slow
def test_every_figure_is_the_same_in_any_style(make_run):
    run = load_run(make_run())
    functions = [
        function
        for module in (outcomes, architecture, gradcam)
        for name, function in vars(module).items()
        if name.endswith("_figure") and name not in ("alpha_figure", "new_figure")
    ]
    assert len(functions) > 8
    drawings = [lambda f=f: f(run) for f in functions]
    drawings += [lambda: architecture.alpha_figure(run, "darts"), lambda: draw_block(PUBLISHED)]
    for draw in drawings:
        plain = style.to_svg(draw(), "figure")
        with mpl.rc_context(HOSTILE):
            assert style.to_svg(draw(), "figure") == plain


def test_pixels_and_files_are_the_same_in_any_style(tmp_path):
    plain = pixels_of(draw_alpha(*ALPHA))
    with style.styled():
        save_figure(draw_block(PUBLISHED), tmp_path / "plain.png")
    with mpl.rc_context(HOSTILE):
        assert (pixels_of(draw_alpha(*ALPHA)) == plain).all()
        with style.styled():
            save_figure(draw_block(PUBLISHED), tmp_path / "own.png")
        assert mpl.rcParams["text.usetex"], "the user's style is as it was"
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


def test_the_style_of_notebooks_replaces_that_of_the_user():
    with mpl.rc_context(HOSTILE):
        style.use_style()
        assert not mpl.rcParams["text.usetex"]
        assert mpl.rcParams["lines.linewidth"] == 1.6


@pytest.fixture
def broken(monkeypatch):
    """Let matplotlib fail to draw, as where LaTeX is asked for and missing; reports are printed."""
    monkeypatch.setattr(style, "report_failure", REPORT)

    def fail(*args, **options):
        raise RuntimeError("latex could not be found\nand more lines")

    for name in ("savefig", "draw", "draw_without_rendering"):
        monkeypatch.setattr(Figure, name, fail)


REPORT = style.report_failure


@pytest.mark.slow
@pytest.mark.usefixtures("broken")
def test_a_report_keeps_its_tables_without_figures(copied, capsys):
    text = write_report([copied]).read_text(encoding="utf-8")
    assert text.count("darts") > 5
    assert "<svg" not in text
    told = capsys.readouterr().err.splitlines()
    assert all(line.endswith("drawn: RuntimeError: latex could not be found") for line in told)
    assert any("'drawn-block'" in line for line in told)


@pytest.mark.slow
@pytest.mark.usefixtures("broken")
def test_tensorboard_keeps_its_numbers_without_figures(make_run, capsys):
    folder = make_run()
    write_summaries(folder)
    assert "could not be drawn" in capsys.readouterr().err
    found = EventAccumulator(str(folder / "tensorboard" / "random")).Reload().Tags()
    assert any("seeds over samples" in tag for tag in found["scalars"])
    assert pixels_of(draw_alpha(*ALPHA)) is None


def test_wrong_data_and_a_full_disk_are_still_told(tmp_path):
    with pytest.raises(UserError, match="genotype"):
        draw_block("gap")
    with pytest.raises(UserError, match="cannot be written"), style.attempted("figure"):
        save_figure(Figure(), tmp_path / "none" / "figure.png")


def test_the_command_line_needs_no_window_system(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "none of this name")
    monkeypatch.setattr(sys, "argv", ["sase-ray", "spaces"])
    with pytest.raises(SystemExit):
        app.main()
    assert os.environ["MPLBACKEND"] == "agg"


def test_a_table_is_there_before_its_figure(broken, made_up_table, tmp_path, capsys):
    from sase_ray.figures.regret import plot_table_comparison

    curves = pd.DataFrame(
        {"strategy": ["random"] * 2, "samples": [1, 2], "regret": [0.2, 0.1], "low": [0.1, 0.0],
         "high": [0.3, 0.2]}
    )  # fmt: skip
    ends = pd.DataFrame({"strategy": ["random"], "seed": [0], "regret": [0.1]})
    drawn = plot_table_comparison(curves, ends, pd.DataFrame(), made_up_table, "val_loss", tmp_path)
    assert drawn is None
    assert "figure 'regret.png' could not be drawn" in capsys.readouterr().err
