"""Section on what was recovered of planted modules."""

from __future__ import annotations

from collections.abc import Iterator

from sase_ray.analysis.recovery import recovery_reading, recovery_summary
from sase_ray.report.document import Part, Table, Text
from sase_ray.report.formatting import number, p_text
from sase_ray.results.load import Run
from trainables.tasks.distillation import NORMALISED_ERROR


def recovery_parts(run: Run) -> Iterator[Part]:
    """Yield the parts on what the searches of a run found of the planted genotypes."""
    rows = run.recovery
    if rows.empty:
        return
    yield from (Text(sentence) for sentence in recovery_reading(rows))
    edges, chance = rows["edges"].iloc[0], rows["chance"].iloc[0]
    head = [
        "strategy", f"edges of {edges}", "95% interval", "p (Holm)", "found whole", "in ranking",
        "error", "the plant's", "ratio",
    ]  # fmt: skip
    cells = [
        [
            row["strategy"],
            number(row["recovered"], ".2f"),
            "" if row["low"] != row["low"] else f"{row['low']:.2f} – {row['high']:.2f}",
            p_text(row["p_holm"]),
            f"{row['found']} of {row['plants']}",
            f"{row['ranked']} of {row['plants']}",
            number(row["error"], NORMALISED_ERROR.format),
            number(row["plant_error"], NORMALISED_ERROR.format),
            "" if row["times"] != row["times"] else NORMALISED_ERROR.show_difference(row["times"]),
        ]
        for row in recovery_summary(rows).to_dict("records")
    ]
    yield Table(
        head,
        cells,
        f"edges recovered, mean over plants (blind guessing: {chance:.2f}); paired t-tests against "
        f"random search; errors on test images are squared errors over the variance of the plant's "
        f"logits, geometric means, beside those of the planted genotypes, trained alike",
    )
    yield Table(
        ["strategy", "seed", "edges", "recovered", "rank of the plant", "answer", "plant"],
        [
            [
                row["strategy"],
                str(row["seed"]),
                str(row["recovered"]),
                row["which"],
                "" if row["rank"] != row["rank"] else f"{row['rank']:.0f} of {row['ranked']}",
                row["genotype"],
                row["plant"],
            ]
            for row in rows.to_dict("records")
        ],
        "every search",
    )
