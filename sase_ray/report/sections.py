"""The sections of a report, in the order in which a reader asks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure

from sase_ray.analysis.main_effects import FEWEST, main_effects, trained_genotypes
from sase_ray.analysis.outcomes import (
    BASELINE,
    combine,
    is_better_small,
    labels_of,
    metric_of,
    proxy_agreement,
    rank_tests,
    winner_of,
)
from sase_ray.analysis.proxy_reliability import (
    measured_reliability,
    reliability_sentences,
    repeated_scores,
)
from sase_ray.analysis.verdict import judge
from sase_ray.config import RANDOM_SEARCH, load_config
from sase_ray.figures import outcomes
from sase_ray.figures.block import draw_block
from sase_ray.figures.gradcam import gradcam_figure
from sase_ray.report.document import Code, Part, Section, Shown, Table, Text
from sase_ray.results.load import Run
from sase_ray.statistics.paired_tests import ALPHA
from sase_ray.statistics.rank_tests import FEWEST_BLOCKS, Kendall, smallest_signed_rank_p_value
from search_spaces.errors import UserError
from search_spaces.genotype import Genotype

SAME = ("dataset", "data", "backbone", "space", "final", "metric", "budget", "seeds", "proxy")
"""Settings that two runs are compared by."""


PANELS = 28
"""Width in rem, below which a figure of several panels is not read."""

UNFOLDED = 3
"""Strategies whose probabilities a page shows at once: the best ones."""


def sections_of(runs: Sequence[Run]) -> list[Section]:
    """Build the report of a run, or of several beside each other."""
    alike = [key for key in SAME if len({repr(run.config.get(key)) for run in runs}) == 1]
    together = combine(runs)
    scales = {"dataset", "metric"} <= set(alike)
    per_run = [
        Section("verdict", "Which strategy won, and is it real?", _verdict(runs, together, alike)),
        Section("cost", "What it cost", list(_cost(together))),
        Section("block", "The block that won", _each(runs, _block)),
        Section(
            "anytime",
            "The best so far, over the cost of the search",
            list(_anytime(together)) if scales else _each(runs, _anytime),
        ),
        Section(
            "tradeoff",
            "Accuracy against cost",
            list(_tradeoff(together)) if scales else _each(runs, _tradeoff),
        ),
        Section("agreement", "Does the proxy rank as the final training does?",
                _each(runs, _agreement)),
        Section("operations", "Which operations good genotypes have", _each(runs, _operations)),
        Section("alpha", "Architecture parameters over time", _each(runs, _alpha)),
        Section("gradcam", "What the modules look at", _each(runs, _gradcam)),
        Section("again", "To do it again", _each(runs, _again)),
    ]  # fmt: skip
    return [section for section in per_run if section.parts]


def _each(runs: Sequence[Run], build: Any) -> list[Part]:
    """Build a part of the report for every run; of several, each below its name."""
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


def _shown(figure: Figure | None, name: str, caption: str, **options: Any) -> Iterator[Part]:
    if figure is not None:
        yield Shown(figure, name, caption, **options)


def percent(value: float, digits: int = 2) -> str:
    """Write a share of 1 in percent; nothing for NaN."""
    return "" if np.isnan(value) else f"{100 * value:.{digits}f}"


def _number(value: float, form: str = ",.0f") -> str:
    return "" if np.isnan(value) else format(value, form)


def _p(value: float) -> str:
    if np.isnan(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _p_is(value: float) -> str:
    return f"p {_p(value)}" if value < 0.001 else f"p = {_p(value)}"


def _verdict(runs: Sequence[Run], together: Run, alike: list[str]) -> list[Part]:
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
                f"These runs differ in {', '.join(differ)}: accuracies of different runs may not "
                f"be comparable, and no test is made between them."
                if differ
                else "These runs have the same settings; no test is made between them."
            )
        )
    table = together.strategies
    if table.empty:
        return parts
    caption = "test accuracy, mean and 95% interval; dots are single searches"
    if "dataset" in alike:
        parts += _shown(outcomes.accuracy_figure(together), "accuracy", caption)
    else:  # on one axis they would only show which data set is easier
        for i, (run, label) in enumerate(zip(runs, labels_of(runs), strict=True)):
            parts += _shown(outcomes.accuracy_figure(run), f"accuracy-{i}", f"{label}: {caption}")
    parts += _shown(
        outcomes.rank_figure(together),
        "ranks",
        f"mean ranks, 1 is best; joined: not told apart by Nemenyi's test at {ALPHA:.0%}",
    )
    rows = [
        [
            row["name"],
            percent(row["test_accuracy"]),
            ""
            if np.isnan(row["ci_low"])
            else f"{percent(row['ci_low'])} – {percent(row['ci_high'])}",
            _number(100 * row["difference"], "+.2f"),
            _p(row["p_holm"]) + ("*" if row["significant"] else ""),
            str(row["units"]),
        ]
        for row in table.to_dict("records")
    ]
    head = ["module by", "accuracy, %", "95% interval", "vs random", "p (Holm)", "searches"]
    parts.append(
        Table(head, rows, "paired t-tests over searches against random search; * below 0.05")
    )
    return parts


def _reading(run: Run) -> Iterator[str]:
    """Say who won, whether that is real, and how reliable the proxy is."""
    winner = winner_of(run)
    if winner is None:
        begun = f"{len(run.trials):,} trials so far" if len(run.trials) else "no trial so far"
        yield f"This run has no final results (yet): {begun}."
    else:
        yield _who_won(winner.row, winner.alike)
        test_size = _test_size(run)
        if test_size and len(run.final):
            dataset = str(run.config.get("dataset", "the data set"))
            yield from judge(run.final, run.searches, test_size=test_size, dataset=dataset).reading
        yield from _on_ranks(run)
    yield from _on_reliability(run)


def _who_won(row: pd.Series, alike: Sequence[str]) -> str:
    name = row["name"]
    also = f" ({', '.join(alike)} the same)" if alike else ""
    interval = (
        f" (95% interval {percent(row['ci_low'])} to {percent(row['ci_high'])})"
        if np.isfinite(row["ci_low"])
        else ""
    )
    first = f"{name}{also} has the best mean test accuracy, {percent(row['test_accuracy'])}%"
    if name == RANDOM_SEARCH:
        return f"{first}{interval}: no other strategy beat random search."
    if np.isnan(row["difference"]):
        return f"{first}{interval}; whether that is real was not tested."
    real = "that is real" if row["p_holm"] < ALPHA else "that may be luck"
    if np.isnan(row["p_holm"]):
        return f"{first}{interval}; one search says nothing about luck."
    return (
        f"{first}{interval}, {100 * row['difference']:+.2f} points to random search: {real} "
        f"({_p_is(row['p_holm'])} after Holm's correction)."
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
    verdict = "differ" if tests.overall < ALPHA else "cannot be told apart"
    yield (
        f"By ranks, without assuming normal errors, the {strategies} strategies {verdict} over "
        f"{seeds} searches each ({name}, {_p_is(tests.overall)})."
    )
    others = max(1, len(tests.control))
    if len(tests.control) and tests.smallest * others > ALPHA:
        needed = next(n for n in range(2, 100) if smallest_signed_rank_p_value(n) * others <= ALPHA)
        yield (
            f"Wilcoxon's signed-rank test of {seeds} pairs cannot give less than "
            f"p = {tests.smallest:.2g}: with Holm's correction for {others} strategies it needs "
            f"{needed} searches each to tell one from random search."
        )
    elif len(tests.control):
        found = tests.control[tests.control["p_holm"] < ALPHA]
        named = ", ".join(
            f"{n} ({_p_is(p)})" for n, p in zip(found["name"], found["p_holm"], strict=True)
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
        measured = measured_reliability(config)
    except UserError:  # of another version, or a space or a study that is elsewhere
        return
    blind = run.trials[run.trials["strategy"].isin([RANDOM_SEARCH, "grid"])]
    black_box = run.trials["family"].eq("black-box").any()
    if black_box:
        scores = repeated_scores(blind, config.metric) if len(blind) else None
        yield from reliability_sentences(config, measured, scores, _place(run))


def _place(run: Run) -> str:
    """Return the run's folder as a reader may write it: nothing of where it lies elsewhere."""
    place = os.path.relpath(run.path)
    return run.name if place.startswith("..") else place


def _cost(run: Run) -> Iterator[Part]:
    table = run.strategies[run.strategies["family"] != BASELINE]
    if table.empty:
        return
    yield from _shown(
        outcomes.cost_figure(run), "cost", "device-seconds of every search (dots) and their mean"
    )
    memory = table["peak_memory_mib"].notna().any()
    head = ["strategy", "samples", "device-s", "trials"] + (["peak MiB"] if memory else [])
    head += ["parameters", "MACs", "latency, ms"]
    rows = []
    for row in run.strategies.to_dict("records"):
        search = row["family"] != BASELINE
        own = [row["name"]]
        own += [_number(row[key]) if search else "" for key in ("search_samples", "search_seconds")]
        own.append(_number(row["trials"], ",.3g") if search else "")
        own += [_number(row["peak_memory_mib"])] if memory else []
        own += [_number(row["parameters"]), _number(row["macs"]), _number(row["latency_ms"], ".2f")]
        rows.append(own)
    yield Table(
        head,
        rows,
        "cost of a search, and of the network with its answer; means over searches"
        + ("; peak MiB: the largest" if memory else ""),
    )


def _block(run: Run) -> Iterator[Part]:
    winner = winner_of(run)
    answers = winner.genotypes if winner else tuple(dict.fromkeys(run.searches["genotype"]))
    if not answers:
        return
    genotype = Genotype.parse(answers[0])
    if winner:
        which = f"{winner.row['name']} found it"
        if len(answers) > 1:
            which += f"; of its {len(answers)} answers, the one that ended best on test images"
        yield Text(f"{which}.")
    else:
        first = run.searches.iloc[0]
        yield Text(
            f"None has won yet: this is the answer of {first['strategy']} with seed "
            f"{first['seed']}."
        )
    yield Code(str(genotype))
    for stage in range(genotype.stages):
        of = f" of stage {stage}" if genotype.stages > 1 else ""
        yield from _shown(
            draw_block(genotype.stage(stage)),
            f"block{stage}",
            f"the block{of}; channel operations blue, spatial operations orange",
            wide=True,
            least=40,
        )
    if len(answers) > 1:
        whose = "Its other" if winner else "Other"
        yield Text(f"{whose} answers: {', '.join(answers[1:])}.")


def _anytime(run: Run) -> Iterator[Part]:
    caption = {
        "search_samples": "over training samples; mean over searches and 95% band",
        "search_seconds": "over device-seconds",
        "trials": "over trials begun",
    }
    drawn = [
        part
        for against, text in caption.items()
        for part in _shown(outcomes.anytime_figure(run, against), f"anytime-{against}", text)
    ]
    if drawn:
        yield Text(
            "What a seed does to all strategies alike is taken out of the bands. A one-shot search "
            "has no stand-alone incumbent and is not drawn."
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
    first = "test accuracy {}; the line joins the Pareto front, hollow: hand-designed modules"
    for i, (cost, text) in enumerate(captions.items()):
        yield from _shown(
            outcomes.tradeoff_figure(run, cost),
            f"tradeoff-{cost}",
            first.format(text) if i == 0 else text,
        )


def _agreement(run: Run) -> Iterator[Part]:
    found = proxy_agreement(run)
    if np.isfinite(found.tau):
        yield Text(_on_agreement(found))
        yield from _shown(
            outcomes.agreement_figure(run),
            "agreement",
            "answers of the searches that train genotypes",
        )
    elif len(run.final):
        yield Text("Fewer than two distinct answers were trained by both protocols on one seed.")
    if len(run.agreement):
        rows = [
            [
                row["strategy"], str(row["seed"]), _number(row["tau"], ".2f"),
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


def _on_agreement(found: Kendall) -> str:
    if np.isnan(found.low):
        interval = "too few for an interval"
    else:
        interval = f"95% bootstrap interval {found.low:.2f} to {found.high:.2f}"
    sentence = (
        f"Kendall's tau of proxy score and final accuracy, within seeds, is {found.tau:.2f} "
        f"({interval}), from {found.pairs} distinct answers."
    )
    if found.low > 0:
        return sentence
    return (
        f"{sentence} They do not show that the better by proxy is the better in the end; answers "
        f"are the best of each search, and so lie close together."
    )


def _operations(run: Run) -> Iterator[Part]:
    number = len(trained_genotypes(run))
    if number < FEWEST:
        if number:
            yield Text(
                f"Only {number} genotypes were trained to the end: {FEWEST} are needed to say "
                f"anything of single operations."
            )
        return
    found = main_effects(run)
    if found is None:
        yield Text("They do not determine main effects of operations.")
    else:
        yield Text(_on_effects(found, metric_of(run)))
    yield from _shown(
        outcomes.shares_figure(run),
        "shares",
        f"operations of the best quarter of {number} trained genotypes, with 95% Wilson intervals, "
        f"beside those of all",
        least=PANELS,
    )
    yield from _shown(
        outcomes.effects_figure(run),
        "effects",
        "main effects with 95% intervals, each on its own; blue: without 0",
        least=PANELS,
    )
    if found is None:
        return
    yield Table(
        ["edge", "p (F-test)", "p (Holm)"],
        [[r["edge"], _p(r["p_value"]), _p(r["p_holm"])] for r in found.edges.to_dict("records")],
        "whether the operations of an edge differ at all",
    )


def _on_effects(found: Any, metric: str) -> str:
    model = (
        "one least-squares model of all edges"
        if found.joint
        else "a least-squares model for each edge on its own, as they are too few for all at once"
    )
    chance = 0.05 * len(found.effects)
    clear = found.edges[found.edges["p_holm"] < ALPHA]["edge"].tolist()
    told = ", ".join(clear) if clear else "none"
    side = "loss" if is_better_small(metric) else "accuracy"
    return (
        f"Main effects on the proxy's {side}: {model}, {found.genotypes} trainings, "
        f"{found.spare} to spare at the least. Of {len(found.effects)} intervals about "
        f"{chance:.0f} lie beside 0 by chance. Edges whose operations differ after Holm's "
        f"correction: {told}. Searches choose what they train, so this describes the genotypes "
        f"seen, not the space."
    )


def _alpha(run: Run) -> Iterator[Part]:
    best_first = list(run.strategies["name"])
    strategies = sorted(
        dict.fromkeys(run.alpha["strategy"]),
        key=lambda name: best_first.index(name) if name in best_first else len(best_first),
    )
    yield from _shown(
        outcomes.monitor_figure(run),
        "monitor",
        "signs of a collapse; thin: single searches",
        least=PANELS,
    )
    for index, strategy in enumerate(strategies):
        yield from _shown(
            outcomes.alpha_figure(run, strategy),
            f"alpha-{index}",
            f"{strategy}: probabilities of the operations, means over searches; blue: the most "
            f"probable in the end; dotted: all alike",
            least=PANELS,
            folded=f"probabilities of {strategy}" if index >= UNFOLDED else None,
        )


def _gradcam(run: Run) -> Iterator[Part]:
    caption = (
        "Grad-CAM of each image's own class, bright where it counts; below each the prediction, "
        "orange where it is wrong"
    )
    winner = winner_of(run)
    if winner:
        table = run.gradcam
        looked_at = table.loc[table["module"].eq(winner.row["name"]), "genotype"].tolist()[:1]
        # A run keeps the maps of first answers, and the best one may be another.
        if looked_at and looked_at[0] not in ("", *winner.genotypes[:1]):
            caption += f"; {winner.row['name']}: {looked_at[0]}, not the block drawn above"
    yield from _shown(gradcam_figure(run), "gradcam", caption)


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None)


def _again(run: Run) -> Iterator[Part]:
    yield Code(f"sase-ray compare --config {_place(run)}/config.yaml --run again")
    recorded = run.recorded
    splits = recorded.run.get("splits")
    digest = splits.get("sha256") if isinstance(splits, dict) else None
    facts = {
        "begun": recorded.run.get("started"),
        "commit": recorded.git,
        "digest of the splits": digest,
        "hardware": _listed(recorded.hardware),
        "versions": _listed(recorded.versions),
    }
    rows = [[str(key), str(value)] for key, value in facts.items() if value]
    if rows:
        yield Table(["", ""], rows, "where and with what it ran")
    # What belongs to a machine stays there.
    shown = {k: v for k, v in run.config.items() if k not in {"results", "storage", "resources"}}
    if isinstance(shown.get("data"), dict):
        shown["data"] = {k: v for k, v in shown["data"].items() if k != "root"}
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    yield Code(text, summary="configuration")
