"""The report as text: what it says is what the tables say, in three formats, or one sentence."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from sase_ray import load_run
from sase_ray.cli import app
from sase_ray.report import render, write_report
from sase_ray.report.document import Section, Shown, Table, Text
from sase_ray.report.sections import sections_of
from search_spaces.errors import UserError
from tests.sase_ray.made_up_run import as_errors

pytestmark = pytest.mark.slow


ORDER = [
    "verdict", "cost", "block", "anytime", "tradeoff", "agreement", "operations", "alpha",
    "gradcam", "again",
]  # fmt: skip


def texts(sections):
    return " ".join(p.text for s in sections for p in s.parts if isinstance(p, Text))


def tables(sections):
    return [p for s in sections for p in s.parts if isinstance(p, Table)]


def figure_names(sections):
    return [p.name for s in sections for p in s.parts if isinstance(p, Shown)]


def test_a_run_with_everything_answers_every_question_in_order(make_run):
    sections = sections_of([load_run(make_run())])
    assert [section.key for section in sections] == ORDER
    said = texts(sections)
    assert re.search(r"tpe has the best mean test accuracy, 82\.\d\d%.*that is real", said)
    assert "Edges whose operations differ after Holm's correction: channel_squeeze." in said
    names = figure_names(sections)
    assert len(set(names)) == len(names)
    assert {"ranks", "monitor", "gradcam", "drawn-block", "anytime-trials"} <= set(names)
    assert "peak MiB" in tables(sections)[1].head


def test_the_reference_run_says_that_nothing_is_real(reference):
    run = load_run(reference)
    sections = sections_of([run])
    said = texts(sections)
    best = run.strategies.iloc[0]
    assert best["p_holm"] > 0.05
    assert f"that may be luck (p = {best['p_holm']:.3f} after Holm's correction)" in said
    assert "No strategy can be told apart from random search" in said
    assert "Wilcoxon's signed-rank test of 3 pairs cannot give less than p = 0.25" in said
    assert "critical-difference diagram needs 5 searches" in said
    assert "gradcam" in [section.key for section in sections]
    assert "ranks" not in figure_names(sections)
    accuracy = tables(sections)[0]
    for row, told in zip(run.strategies.to_dict("records"), accuracy.rows, strict=True):
        assert told[0] == row["name"]
        assert float(told[1]) == pytest.approx(100 * row["test_accuracy"], abs=0.005)
    # Of many one-shot strategies, the best ones' probabilities are shown, the others' on demand.
    drawn = [part for section in sections if section.key == "alpha" for part in section.parts]
    probabilities = [p for p in drawn if isinstance(p, Shown) and p.name.startswith("alpha-")]
    names = [part.caption.split(":")[0] for part in probabilities]
    assert names == [name for name in run.strategies["name"] if name in names]
    assert [p.folded is None for p in probabilities] == [True] * 3 + [False] * (len(names) - 3)
    page = render.render([run], sections, "html", "")
    assert page.count("<details><summary>probabilities of ") == len(names) - 3 > 0


def test_a_metric_of_which_less_is_better_turns_everything_over(make_run):
    """Errors of 1 / accuracy ** 2 have the same winner; the words and figures are of errors."""
    run = as_errors(load_run(make_run()))
    sections = sections_of([run])
    said = texts(sections)
    best = run.strategies.iloc[0]
    ratio = f"{best['difference']:.3g} times that of random search"
    assert f"tpe has the best geometric mean test normalised error, {best.iloc[2]:.3g} (" in said
    assert ratio in said
    assert "Kendall's tau of proxy score and final normalised error" in said
    shown = tables(sections)[0]
    assert shown.head[1] == "normalised error"
    assert "(lower is better)" in shown.caption
    assert [row[0] for row in shown.rows] == run.strategies["name"].tolist()
    of_tpe = next(row for row in shown.rows if row[0] == "tpe")
    assert of_tpe[3] == f"×{best['difference']:.3g}"
    page = render.render([run], sections, "html", "")
    assert "Normalised error against cost" in page
    for word in ("accuracy", "points", "test images of"):
        assert word not in page.replace("Grad-CAM of each image", ""), word


@pytest.mark.usefixtures("undrawn")
def test_runs_of_different_tasks_have_tables_of_their_own(make_run):
    run = load_run(make_run())
    sections = sections_of([run, as_errors(run)])
    assert [table.head[1] for table in tables(sections)[:2]] == ["accuracy, %", "normalised error"]
    assert "differ in task" in texts(sections)


def test_a_run_that_has_only_begun(copied):
    for name in ("strategies", "final", "searches", "rankings", "gradcam"):
        (copied / f"{name}.parquet").unlink()
    run = load_run(copied)
    sections = sections_of([run])
    told = f"This run has no final results (yet): {len(run.trials)} trials so far."
    assert told in texts(sections)
    assert [s.key for s in sections] == ["verdict", "anytime", "operations", "alpha", "again"]


@pytest.mark.usefixtures("undrawn")
def test_answers_before_the_final_trainings_have_not_won(copied):
    for name in ("strategies", "final"):
        (copied / f"{name}.parquet").unlink()
    said = texts(sections_of([load_run(copied)]))
    assert "None has won yet: this is the answer of random with seed 0." in said
    assert "Its other answers" not in said


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_any_table(copied):
    for path in copied.glob("*.parquet"):
        path.unlink()
    text = write_report([copied]).read_text()
    assert "no trial so far" in text


@pytest.mark.usefixtures("undrawn")
def test_runs_beside_each_other_are_labelled_and_not_tested_against_each_other(make_run, reference):
    sections = sections_of([load_run(make_run()), load_run(reference)])
    names = [row[0] for row in tables(sections)[0].rows]
    assert {"made · tpe", "fashion_mnist · tpe", "fashion_mnist · none"} <= set(names)
    said = texts(sections)
    assert "no test is made between them" in said
    assert "differ in dataset" in said
    figures = figure_names(sections)
    assert len(set(figures)) == len(figures)


@pytest.mark.usefixtures("undrawn")
def test_two_runs_of_the_same_settings_share_figures_and_have_names(make_run):
    path = make_run()
    sections = sections_of([load_run(path), load_run(path)])
    assert "made (2) · tpe" in [row[0] for row in tables(sections)[0].rows]
    assert figure_names(sections).count("anytime-trials") == 1


def test_markdown_tables_have_the_numbers_and_figures_lie_beside(reference, tmp_path):
    path = write_report([reference], "md", tmp_path / "paper.md")
    text = path.read_text()
    tpe = load_run(reference).strategies.set_index("name").loc["tpe"]
    low, high = 100 * tpe["ci_low"], 100 * tpe["ci_high"]
    told = f"| tpe | {100 * tpe['test_accuracy']:.2f} | {low:.2f} – {high:.2f} |"
    assert f"{told} {100 * tpe['difference']:+.2f} | {tpe['p_holm']:.3f} | 3 |" in text
    linked = re.findall(r"\]\((paper_figures/[\w-]+\.svg)\)", text)
    assert len(linked) > 10
    assert all((tmp_path / link).stat().st_size > 500 for link in linked)


@pytest.mark.usefixtures("undrawn")
def test_latex_escapes_and_balances(make_run, tmp_path):
    run = make_run(renamed={"tpe": r"50%_\input{x}&#$~^"})
    text = write_report([run], "latex", tmp_path / "paper.tex").read_text()
    assert r"50\%\_\textbackslash{}input\{x\}\&\#\$\textasciitilde{}\textasciicircum{}" in text
    for name in ("table", "tabular", "figure"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") > 0
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    rows = [line for line in text.splitlines() if line.strip().startswith("random &")]
    assert rows
    assert all(row.endswith(r"\\") for row in rows)


@pytest.mark.usefixtures("undrawn")
def test_markdown_reads_no_name_as_markup(make_run, tmp_path):
    run = make_run(renamed={"tpe": "a|b<script>*`[x](y)"})
    text = write_report([run], "md", tmp_path / "paper.md").read_text()
    assert r"a\|b\<script\>\*" in text
    assert "<script" not in text.replace(r"\<script", "")


def test_paragraphs_stay_apart_in_markdown_and_latex(copied):
    said = [Text("One."), Text("Two."), Shown(Figure(), "name", "caption")]
    for form, picture in (("md", "!["), ("latex", r"\begin{figure}")):
        text = render.render([load_run(copied)], [Section("key", "Title", said)], form, "figures")
        assert "One.\n\nTwo.\n\n" + picture in text


def test_latex_cells_have_a_minus_and_break_where_they_are_long(copied):
    numbers = Table(["name", "difference"], [["a-b", "-0.10"]], "numbers")
    digest = "f905cbed3cd58aae2b094e0038fae0e3c1ba9827a76dade795a0178fe82d50d2"
    texts = Table(["", ""], [["digest", digest]], "texts")
    sections = [Section("key", "Title", [numbers, texts])]
    text = render.render([load_run(copied)], sections, "latex", "figures")
    assert r"a-b & $-$0.10 \\" in text
    assert digest not in text
    assert digest in text.replace(r"\allowbreak{}", "")


@pytest.mark.full
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_latex_compiles(copied, tmp_path):
    write_report([copied], "latex", tmp_path / "report.tex")
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage{array,booktabs,graphicx}"
        r"\begin{document}\input{report}\end{document}"
    )
    subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


class Tags(HTMLParser):
    """Names of elements and attributes of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.links += [v for name, v in attrs if name in {"href", "src", "xlink:href"}]


def test_a_page_is_whole_and_asks_nobody(make_run):
    template = "{{ 7 * 7 }}{% raw %}$\\frac{1}{$"
    page = write_report(
        [make_run(renamed={"tpe": "<script>alert(1)</script>", "random": template})]
    )
    assert page.name == "report.html"
    text = page.read_text()
    found = Tags()
    found.feed(text)
    assert "script" not in found.tags
    assert not [name for name in found.attributes if name.startswith("on")]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in found.links)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert template in text
    assert found.tags.count("svg") > 10
    assert found.tags.count("text") > 100
    # Every line of a drawing follows the theme or says its colour.
    assert not re.search(r"stroke: #(1a1a1a|666666|0072b2)\b", text)


@pytest.mark.parametrize("form", ["pdf", "", "HTML"])
def test_a_wrong_format(form, reference):
    with pytest.raises(UserError, match="unknown format"):
        write_report([reference], form)


def test_too_few_and_too_many_runs(reference):
    with pytest.raises(UserError, match="1 to 8 runs, not of 0"):
        write_report([])
    with pytest.raises(UserError, match="1 to 8 runs, not of 9"):
        write_report([reference] * 9)


def test_more_strategies_than_a_page_shows(copied):
    table = pd.read_parquet(copied / "strategies.parquet")
    many = pd.concat([table.head(10).assign(name=table["name"] + str(i)) for i in range(7)])
    many.to_parquet(copied / "strategies.parquet")
    with pytest.raises(UserError, match="70 strategies"):
        write_report([copied])


@pytest.mark.parametrize("output", ["missing/report.html", "a\0b.html", "x" * 300 + ".html"])
def test_a_place_that_cannot_be_written(output, copied, tmp_path, monkeypatch):
    monkeypatch.setattr(render, "render", lambda *given: "")
    monkeypatch.setattr(render, "sections_of", lambda runs: [])
    with pytest.raises(UserError, match="cannot be written") as refused:
        write_report([copied], output=tmp_path / output)
    assert str(refused.value).count("cannot be written") == 1


def test_a_genotype_that_is_none(copied):
    final = pd.read_parquet(copied / "final.parquet")
    final.assign(module="nonsense").to_parquet(copied / "final.parquet")
    with pytest.raises(UserError, match="expected 6 operations"):
        write_report([copied])


def test_the_command(reference, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("sase_ray.report.render.sections_of", lambda runs: [])
    page = tmp_path / "page.html"
    done = CliRunner().invoke(app.app, ["report", str(reference), "--output", str(page), "--open"])
    assert done.exit_code == 0, done.output
    assert "report:" in done.output
    assert page.exists()
    assert opened == [page.as_uri()]


def test_what_is_not_of_the_block_or_not_a_mean_says_so(reference, undrawn):
    run = load_run(reference)
    sections = {section.key: section.parts for section in sections_of([run])}
    final = run.final[run.final["name"] == run.strategies["name"][0]]
    best, first = final.loc[final["test_accuracy"].idxmax(), "module"], final["module"].iloc[0]
    assert best != first
    assert f"{first}, not the block drawn above" in sections["gradcam"][0].caption
    cost = sections["cost"][-1]
    peak = run.searches[run.searches["strategy"] == final["name"].iloc[0]]["peak_memory_mib"].max()
    assert cost.rows[0][cost.head.index("peak MiB")] == f"{peak:,.0f}"
    assert "peak MiB: the largest" in cost.caption
    alike = run.gradcam.assign(genotype=best)
    parts = sections_of([replace(run, gradcam=alike)])[-2].parts
    assert "not the block" not in parts[0].caption
