"""Sections on which strategy found better modules."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np

from sase_ray.analysis.outcomes import (
    Winner,
    final_column,
    final_metric,
    rank_tests,
    winner_of,
)
from sase_ray.analysis.proxy_reliability import (
    measured_reliability,
    reliability_sentences,
    repeated_scores,
)
from sase_ray.analysis.proxy_validity import measured_validity, validity_sentences
from sase_ray.analysis.recovery import PLANTED
from sase_ray.analysis.verdict import judge
from sase_ray.config import RANDOM_SEARCH, load_config
from sase_ray.figures import outcomes
from sase_ray.report.combine import SAME, labels_of
from sase_ray.report.document import Part, Table, Text
from sase_ray.report.formatting import figure_parts, p_is, p_text
from sase_ray.results.families import is_of_trained_genotypes
from sase_ray.results.load import Run
from sase_ray.statistics.paired_tests import SIGNIFICANCE
from sase_ray.statistics.rank_tests import FEWEST_BLOCKS, smallest_signed_rank_p_value
from sase_ray.strategies.registry import tries_blindly
from search_spaces.errors import UserError
from trainables.metrics import Metric


def verdict_parts(runs: Sequence[Run], together: Run, alike: list[str]) -> list[Part]:
    """Return the parts on which strategy found better modules."""
    parts: list[Part] = []
    for run, label in zip(runs, labels_of(runs), strict=True):
        prefix = f"{label}: " if len(runs) > 1 else ""
        parts += [
            Text(prefix + sentence if i == 0 else sentence, strong=i == 0)
            for i, sentence in enumerate(_reading(run))
        ]
    if len(runs) > 1:
        differ = [key for key in SAME if key not in alike]
        parts.append(
            Text(
                f"These runs differ in {', '.join(differ)}: results of different runs may not "
                f"be comparable, and no test is made between them."
                if differ
                else "These runs have the same settings; no test is made between them."
            )
        )
    table = together.strategies
    if table.empty:
        return parts
    if {"dataset", "task"} <= set(alike):
        parts += figure_parts(outcomes.final_figure(together), "accuracy", _caption(together))
    else:  # on one axis, runs would only show which data set is easier
        for i, (run, label) in enumerate(zip(runs, labels_of(runs), strict=True)):
            parts += figure_parts(
                outcomes.final_figure(run), f"accuracy-{i}", f"{label}: {_caption(run)}"
            )
    parts += figure_parts(
        outcomes.rank_figure(together),
        "ranks",
        f"mean ranks, 1 is best; joined: not told apart by Nemenyi's test at {SIGNIFICANCE:.0%}",
    )
    if "task" in alike:
        return [*parts, _table(together)]
    for run, label in zip(runs, labels_of(runs), strict=True):
        parts += [Text(label, strong=True), _table(run)]
    return parts


def _caption(run: Run) -> str:
    shown = final_column(run).replace("_", " ")
    return f"{shown}, {final_metric(run).mean} and 95% interval; dots are single searches"


def _table(run: Run) -> Table:
    """Return the table of results and of their tests against random search."""
    column, metric = final_column(run), final_metric(run)
    rows = [
        [
            row["name"],
            "" if np.isnan(row[column]) else metric.show(row[column]),
            ""
            if np.isnan(row["ci_low"])
            else f"{metric.show(row['ci_low'])} – {metric.show(row['ci_high'])}",
            "" if np.isnan(row["difference"]) else metric.show_difference(row["difference"]),
            p_text(row["p_holm"]) + ("*" if row["significant"] else ""),
            str(row["units"]),
        ]
        for row in run.strategies.to_dict("records")
    ]
    unit = f", {metric.unit}" if metric.unit else ""
    head = [
        "module by",
        f"{column.removeprefix('test_').replace('_', ' ')}{unit}",
        "95% interval",
        "vs random",
        "p (Holm)",
        "searches",
    ]
    tests = "over searches against random search; * below 0.05"
    if metric.ratio:
        means = f"geometric means{metric.hint} and their ratios; paired t-tests of logarithms"
        return Table(head, rows, f"{means} {tests}")
    return Table(head, rows, f"paired t-tests {tests}")


def _reading(run: Run) -> Iterator[str]:
    """Yield who won, whether that is more than chance, and how reliable the proxy is."""
    winner = winner_of(run)
    if winner is None:
        begun = f"{len(run.trials):,} trials so far" if len(run.trials) else "no trial so far"
        yield f"This run has no final results (yet): {begun}."
    else:
        column, metric = final_column(run), final_metric(run)
        yield _who_won(winner, column, metric) + _of_the_plant(run)
        test_size = _test_size(run)
        if test_size and len(run.final):
            dataset = str(run.config.get("dataset", "the data set"))
            verdict = judge(
                run.final,
                run.searches,
                test_size=test_size,
                dataset=dataset,
                column=column,
                metric=metric,
            )
            yield from verdict.reading
        yield from _on_ranks(run)
    yield from _on_reliability(run)


def _of_the_plant(run: Run) -> str:
    """Return a sentence with the result of the planted genotypes themselves, if there are any."""
    own = run.strategies[run.strategies["name"] == PLANTED]
    if own.empty or run.recovery.empty:
        return ""
    result = final_metric(run).tell(own[final_column(run)].iloc[0])
    return f" The planted genotype itself, trained alike, has {result}."


def _who_won(winner: Winner, column: str, metric: Metric) -> str:
    row = winner.row
    name, shown = row["name"], column.replace("_", " ")
    also = f" ({', '.join(winner.alike)} the same)" if winner.alike else ""
    interval = (
        f" (95% interval {metric.show(row['ci_low'])} to {metric.show(row['ci_high'])})"
        if np.isfinite(row["ci_low"])
        else ""
    )
    if winner.alone:
        mean = f"{metric.mean} " * (row["units"] > 1)
        return (
            f"{name} is the only strategy: its {mean}{shown} is "
            f"{metric.tell(row[column])}{interval}."
        )
    first = f"{name}{also} has the best {metric.mean} {shown}, {metric.tell(row[column])}"
    if name == RANDOM_SEARCH:
        return f"{first}{interval}: no other strategy beat random search."
    if np.isnan(row["difference"]):
        return f"{first}{interval}; whether that is real was not tested."
    real = "that is real" if row["p_holm"] < SIGNIFICANCE else "that may be luck"
    if np.isnan(row["p_holm"]):
        return f"{first}{interval}; one search says nothing about luck."
    return (
        f"{first}{interval}, {metric.tell_difference(row['difference'])} random search: {real} "
        f"({p_is(row['p_holm'])} after Holm's correction)."
    )


def _test_size(run: Run) -> int | None:
    splits = run.recorded.run.get("splits")
    size = splits.get("test") if isinstance(splits, dict) else None
    return size if isinstance(size, int) and size > 0 else None


def _on_ranks(run: Run) -> Iterator[str]:
    tests = rank_tests(run)
    if tests is None:
        return
    seeds, strategies = tests.blocks.shape
    name = "Friedman's test" if strategies > 2 else "Wilcoxon's signed-rank test"
    verdict = "differ" if tests.overall < SIGNIFICANCE else "cannot be told apart"
    yield (
        f"By ranks, without assuming normal errors, the {strategies} strategies {verdict} over "
        f"{seeds} searches each ({name}, {p_is(tests.overall)})."
    )
    others = max(1, len(tests.control))
    if len(tests.control) and tests.smallest * others > SIGNIFICANCE:
        needed = next(
            n for n in range(2, 100) if smallest_signed_rank_p_value(n) * others <= SIGNIFICANCE
        )
        yield (
            f"Wilcoxon's signed-rank test of {seeds} pairs cannot give less than "
            f"p = {tests.smallest:.2g}: with Holm's correction for {others} strategies it needs "
            f"{needed} searches each to tell one from random search."
        )
    elif len(tests.control):
        found = tests.control[tests.control["p_holm"] < SIGNIFICANCE]
        named = ", ".join(
            f"{n} ({p_is(p)})" for n, p in zip(found["name"], found["p_holm"], strict=True)
        )
        yield (
            f"Wilcoxon's signed-rank tests against random search, after Holm's correction, find "
            f"{named or 'no strategy that differs'}."
        )
    if strategies > 2 and not tests.can_draw:
        yield (
            f"A critical-difference diagram needs {FEWEST_BLOCKS} searches each at the least; "
            f"there are {seeds}."
        )


def _on_reliability(run: Run) -> Iterator[str]:
    try:
        config = load_config({"config": run.config, "versions": {}})
        if config.reliability is not None and not os.path.isfile(config.reliability):
            config = config.model_copy(update={"reliability": None})
        measured, valid = measured_reliability(config), measured_validity(config)
    except UserError:  # the run is of another version, or its space or study is not on this machine
        return
    blind = run.trials[run.trials["strategy"].map(tries_blindly).astype(bool)]
    if is_of_trained_genotypes(run.trials).any():
        scores = repeated_scores(blind, config.metric) if len(blind) else None
        yield from reliability_sentences(config, measured, scores, rank_in(run))
        yield from validity_sentences(config, valid, rank_in(run))


def rank_in(run: Run) -> str:
    """Return the run's folder relative to the current one; only its name if it is outside.

    Absolute paths of the machine stay out of the report.
    """
    place = os.path.relpath(run.path)
    return run.name if place.startswith("..") else place
