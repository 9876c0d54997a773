"""Sections on the modules that were found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sase_ray.analysis.main_effects import FEWEST, main_effects, trained_genotypes
from sase_ray.analysis.outcomes import (
    ranking_metric,
    winner_of,
)
from sase_ray.figures import architecture
from sase_ray.figures.block import draw_block
from sase_ray.figures.gradcam import gradcam_figure
from sase_ray.report.document import Code, Part, Table, Text
from sase_ray.report.formatting import figure_parts, p_text
from sase_ray.results.load import Run
from sase_ray.statistics.paired_tests import SIGNIFICANCE
from search_spaces.genotype import Genotype
from trainables.metrics import Metric

PANELS = 28
"""Minimum width in rem at which a figure of several panels is readable."""


UNFOLDED = 3
"""Number of strategies, the best ones, whose probabilities a page shows without a click."""


def block_parts(run: Run) -> Iterator[Part]:
    """Yield the drawing of the winning block."""
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
    yield from figure_parts(
        draw_block(genotype),
        "drawn-block",
        f"the block{'s of the stages' if genotype.stages > 1 else ''}; channel operations blue, "
        f"spatial operations orange",
        wide=True,
        least=40,
    )
    if len(answers) > 1:
        whose = "Its other" if winner else "Other"
        yield Text(f"{whose} answers: {', '.join(answers[1:])}.")


def operation_parts(run: Run) -> Iterator[Part]:
    """Yield the contribution of each operation."""
    number = len(trained_genotypes(run))
    if number < FEWEST:
        if number:
            yield Text(
                f"Only {number} genotype{'s were' if number > 1 else ' was'} trained to the end: "
                f"{FEWEST} are needed to say anything of single operations."
            )
        return
    found = main_effects(run)
    if found is None:
        yield Text("They do not determine main effects of operations.")
    else:
        yield Text(_on_effects(found, ranking_metric(run)))
    yield from figure_parts(
        architecture.shares_figure(run),
        "shares",
        f"operations of the best quarter of {number} trained genotypes, with 95% Wilson intervals, "
        f"beside those of all",
        least=PANELS,
    )
    yield from figure_parts(
        architecture.effects_figure(run),
        "effects",
        "main effects with 95% intervals, each on its own; blue: without 0",
        least=PANELS,
    )
    if found is None:
        return
    yield Table(
        ["edge", "p (F-test)", "p (Holm)"],
        [
            [r["edge"], p_text(r["p_value"]), p_text(r["p_holm"])]
            for r in found.edges.to_dict("records")
        ],
        "whether the operations of an edge differ at all",
    )


def _on_effects(found: Any, metric: Metric) -> str:
    model = (
        "one least-squares model of all edges"
        if found.joint
        else "a least-squares model for each edge on its own, as they are too few for all at once"
    )
    chance = 0.05 * len(found.effects)
    clear = found.edges[found.edges["p_holm"] < SIGNIFICANCE]["edge"].tolist()
    told = ", ".join(clear) if clear else "none"
    return (
        f"Main effects on the proxy's {metric.name}: {model}, {found.genotypes} trainings, "
        f"{found.spare} to spare at the least. Of {len(found.effects)} intervals about "
        f"{chance:.0f} lie beside 0 by chance. Edges whose operations differ after Holm's "
        f"correction: {told}. Searches choose what they train, so this describes the genotypes "
        f"seen, not the space."
    )


def alpha_parts(run: Run) -> Iterator[Part]:
    """Yield the figures of the architecture parameters over time."""
    best_first = list(run.strategies["name"])
    strategies = sorted(
        dict.fromkeys(run.alpha["strategy"]),
        key=lambda name: best_first.index(name) if name in best_first else len(best_first),
    )
    yield from figure_parts(
        architecture.monitor_figure(run),
        "monitor",
        "signs of a collapse; thin: single searches",
        least=PANELS,
    )
    for index, strategy in enumerate(strategies):
        yield from figure_parts(
            architecture.alpha_figure(run, strategy),
            f"alpha-{index}",
            f"{strategy}: probabilities of the operations, means over searches; blue: the most "
            f"probable in the end; dotted: all alike",
            least=PANELS,
            folded=f"probabilities of {strategy}" if index >= UNFOLDED else None,
        )


def gradcam_parts(run: Run) -> Iterator[Part]:
    """Yield the Grad-CAM figure of the trained networks."""
    caption = (
        "Grad-CAM of each image's own class, bright where it counts; below each the prediction, "
        "orange where it is wrong"
    )
    winner = winner_of(run)
    if winner:
        table = run.gradcam
        looked_at = table.loc[table["module"].eq(winner.row["name"]), "genotype"].tolist()[:1]
        # A run keeps the maps of each strategy's first answer, which may not be its best.
        if looked_at and looked_at[0] not in ("", *winner.genotypes[:1]):
            caption += f"; {winner.row['name']}: {looked_at[0]}, not the block drawn above"
    yield from figure_parts(gradcam_figure(run), "gradcam", caption)
