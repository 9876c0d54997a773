"""Sections of a report, in the order of a reader's questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sase_ray.analysis.outcomes import (
    BASELINE,
    final_metric,
    proxy_agreement,
)
from sase_ray.figures import outcomes
from sase_ray.report.block_sections import alpha_parts, block_parts, gradcam_parts, operation_parts
from sase_ray.report.combine import combine, labels_of, settings_alike
from sase_ray.report.document import Code, Part, Section, Shown, Table, Text
from sase_ray.report.formatting import figure_parts, listed, number
from sase_ray.report.recovery_section import recovery_parts
from sase_ray.report.verdict_section import rank_in, verdict_parts
from sase_ray.results.load import Run
from sase_ray.statistics.rank_tests import Kendall
from search_spaces.user_files import dump_yaml


def sections_of(runs: Sequence[Run]) -> list[Section]:
    """Build the sections of a run's report, or of one that compares several runs."""
    alike = settings_alike(runs)
    together = combine(runs)
    scales = {"dataset", "metric", "task"} <= set(alike)
    per_run = [
        Section(
            "verdict",
            "Which strategy won, and is it real?",
            verdict_parts(runs, together, alike),
        ),
        Section("recovery", "Was the planted module found?", _each(runs, recovery_parts)),
        Section("cost", "What it cost", list(_cost(together))),
        Section("block", "The block that won", _each(runs, block_parts)),
        Section(
            "anytime",
            "The best so far, over the cost of the search",
            list(_anytime(together)) if scales else _each(runs, _anytime),
        ),
        Section(
            "tradeoff",
            f"{_results_of(runs).capitalize()} against cost",
            list(_tradeoff(together)) if scales else _each(runs, _tradeoff),
        ),
        Section("agreement", "Does the proxy rank as the final training does?",
                _each(runs, _agreement)),
        Section("operations", "Which operations good genotypes have", _each(runs, operation_parts)),
        Section("alpha", "Architecture parameters over time", _each(runs, alpha_parts)),
        Section("gradcam", "What the modules look at", _each(runs, gradcam_parts)),
        Section("again", "To do it again", _each(runs, _again)),
    ]  # fmt: skip
    return [section for section in per_run if section.parts]


def _results_of(runs: Sequence[Run]) -> str:
    """Return the name of the final results of some runs."""
    titles = {final_metric(run).title for run in runs}
    return titles.pop() if len(titles) == 1 else "result"


def _each(runs: Sequence[Run], build: Any) -> list[Part]:
    """Build a part of the report for every run; if there are several, each below its name."""
    if len(runs) == 1:
        return list(build(runs[0]))
    parts: list[Part] = []
    for run, label in zip(runs, labels_of(runs), strict=True):
        own = list(build(run))
        if own:
            parts += [Text(label, strong=True), *own]
    return _with_unique_names(parts)


def _with_unique_names(parts: list[Part]) -> list[Part]:
    return [
        replace(part, name=f"{part.name}-{i}") if isinstance(part, Shown) else part
        for i, part in enumerate(parts)
    ]


def _cost(run: Run) -> Iterator[Part]:
    table = run.strategies[run.strategies["family"] != BASELINE]
    if table.empty:
        return
    yield from figure_parts(
        outcomes.cost_figure(run), "cost", "device-seconds of every search (dots) and their mean"
    )
    memory = table["peak_memory_mib"].notna().any()
    head = ["strategy", "samples", "device-s", "trials"] + (["peak MiB"] if memory else [])
    head += ["parameters", "MACs", "latency, ms"]
    rows = []
    for row in run.strategies.to_dict("records"):
        search = row["family"] != BASELINE
        own = [row["name"]]
        own += [number(row[key]) if search else "" for key in ("search_samples", "search_seconds")]
        own.append(number(row["trials"], ",.3g") if search else "")
        own += [number(row["peak_memory_mib"])] if memory else []
        own += [number(row["parameters"]), number(row["macs"]), number(row["latency_ms"], ".2f")]
        rows.append(own)
    yield Table(
        head,
        rows,
        "cost of a search, and of the network with its answer; means over searches"
        + ("; peak MiB: the largest" if memory else ""),
    )


def _anytime(run: Run) -> Iterator[Part]:
    caption = {
        "search_samples": "over training samples; mean over searches and 95% band",
        "search_seconds": "over device-seconds",
        "trials": "over trials begun",
    }
    drawn = [
        part
        for against, text in caption.items()
        for part in figure_parts(outcomes.anytime_figure(run, against), f"anytime-{against}", text)
    ]
    if drawn:
        several = "What a seed does to all strategies alike is taken out of the bands. "
        yield Text(
            several
            * (run.searches["strategy"].nunique() != 1)
            + "Searches that do not train genotypes one by one have no incumbent to compare and "
            "are not drawn."
        )
        yield from drawn
    else:
        yield Text("No search of this run trained genotypes one by one: there is no incumbent.")


def _tradeoff(run: Run) -> Iterator[Part]:
    captions = {
        "search_seconds": "against the cost of the search",
        "parameters": "against parameters",
        "macs": "against multiply-accumulates",
        "latency_ms": "against latency, as measured in the run",
    }
    first = "; the line joins the Pareto front, hollow: hand-designed modules"
    drawn = {cost: outcomes.tradeoff_figure(run, cost) for cost in captions}
    drawn = {cost: figure for cost, figure in drawn.items() if figure is not None}
    for i, (cost, figure) in enumerate(drawn.items()):
        caption = captions[cost]
        if i == 0:
            caption = f"test {final_metric(run).title} {caption}{first}"
        yield from figure_parts(figure, f"tradeoff-{cost}", caption)


def _agreement(run: Run) -> Iterator[Part]:
    found = proxy_agreement(run)
    if np.isfinite(found.tau):
        yield Text(_on_agreement(found, final_metric(run).title))
        yield from figure_parts(
            outcomes.agreement_figure(run),
            "agreement",
            "answers of the searches that train genotypes",
        )
    elif len(run.final):
        yield Text("Fewer than two distinct answers were trained by both protocols on one seed.")
    if len(run.agreement):
        rows = [
            [
                row["strategy"], str(row["seed"]), number(row["tau"], ".2f"),
                "" if np.isnan(row["low"]) else f"{row['low']:.2f} – {row['high']:.2f}",
                str(row["genotypes"]),
            ]
            for row in run.agreement.to_dict("records")
        ]  # fmt: skip
        yield Table(
            ["one-shot search", "seed", "tau", "95% interval", "genotypes"],
            rows,
            "Kendall's tau of a one-shot search's own ranking and stand-alone trainings",
        )


def _on_agreement(found: Kendall, result: str) -> str:
    if np.isnan(found.low):
        interval = "too few for an interval"
    else:
        interval = f"95% bootstrap interval {found.low:.2f} to {found.high:.2f}"
    sentence = (
        f"Kendall's tau of proxy score and final {result}, within seeds, is {found.tau:.2f} "
        f"({interval}), from {found.pairs} distinct answers."
    )
    if found.low > 0:
        return sentence
    return (
        f"{sentence} They do not show that the better by proxy is the better in the end; answers "
        f"are the best of each search, and so lie close together."
    )


def _again(run: Run) -> Iterator[Part]:
    yield Code(f"sase-ray compare --config {rank_in(run)}/config.yaml --run again")
    recorded = run.recorded
    splits, notes = recorded.run.get("splits"), recorded.run.get("notes")
    digest = splits.get("sha256") if isinstance(splits, dict) else None
    facts = {
        "begun": recorded.run.get("started"),
        "commit": recorded.git,
        "digest of the splits": digest,
        "hardware": listed(recorded.hardware),
        "versions": listed(recorded.versions),
        "images": "; ".join(map(str, notes)) if isinstance(notes, list) else None,
    }
    rows = [[str(key), str(value)] for key, value in facts.items() if value]
    if rows:
        yield Table(["", ""], rows, "where and with what it ran")
    # Settings that hold only for the run's machine are left out.
    shown = {k: v for k, v in run.config.items() if k not in {"results", "storage", "resources"}}
    if isinstance(shown.get("data"), dict):
        shown["data"] = {k: v for k, v in shown["data"].items() if k != "root"}
    text = dump_yaml(shown)
    yield Code(text, summary="configuration")
