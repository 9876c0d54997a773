"""Output of the commands: tables, sentences, and where the files are."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from sase_ray.console import console_for_tables, print_wide, say
from sase_ray.figures.block_text import draw
from sase_ray.results.search_id import SearchId
from trainables.metrics import find_metric

if TYPE_CHECKING:  # so that a command that only lists need not load torch
    import pandas as pd

    from sase_ray.commands.compare import Comparison
    from sase_ray.commands.compare_on_table import TableComparison
    from sase_ray.commands.reliability import ReliabilityReport
    from sase_ray.commands.search import SearchReport
    from sase_ray.commands.train import Trained
    from trainables.metrics import Metric
    from trainables.one_shot.latency_table import LatencyTable


def print_report(console: Console, report: Comparison | SearchReport | ReliabilityReport) -> None:
    """Print the result of a run of any kind."""
    from sase_ray.commands.compare import Comparison
    from sase_ray.commands.search import SearchReport

    if isinstance(report, Comparison):
        print_comparison(console, report)
    elif isinstance(report, SearchReport):
        print_search(console, report)
    else:
        print_reliability(console, report)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print a comparison's table, the genotypes found, and the reading."""
    metric = comparison.metric
    column = f"test_{metric.name}"
    unit = f" in {metric.unit}" if metric.unit else ""
    table = Table(
        title=f"{column.replace('_', ' ')}{unit}{metric.hint}, {metric.mean} and 95% interval over "
        f"independent searches"
    )
    columns = (
        "module by", metric.name.replace("_", "\n"), "interval", "vs\nrandom", "p\n(Holm)",
        "samples", "device\ns", "trials", "latency\nms", "parameters", "MACs",
    )  # fmt: skip
    for head in columns:
        table.add_column(head, justify="left" if head == "module by" else "right")
    for row in comparison.table.to_dict("records"):
        table.add_row(*_cells(row, metric, column))
    print_wide(table)
    for outcome in comparison.outcomes:
        say(console, f"{SearchId.of(outcome.strategy, outcome.seed)} found {outcome.genotype}")
    for reason in comparison.failures.values():
        say(console, f"failed: {reason}", style="red")
    console.print()
    for sentence in comparison.reading:
        say(console, sentence)
    print_places(console, comparison.folder)


def _cells(row: dict[str, Any], metric: Metric, column: str) -> list[str]:
    def number(value: float, form: str) -> str:
        return "" if value != value else format(value, form)

    interval = difference = ""
    if row["ci_low"] == row["ci_low"]:
        interval = f"{metric.show(row['ci_low'])} – {metric.show(row['ci_high'])}"
    if row["difference"] == row["difference"]:
        difference = metric.show_difference(row["difference"])
    return [
        row["name"],
        metric.show(row[column]),
        interval,
        difference,
        number(row["p_holm"], ".3f") + ("*" if row["significant"] else ""),
        f"{row['search_samples']:,.0f}",
        f"{row['search_seconds']:,.0f}",
        f"{row['trials']:,.0f}",
        f"{row['latency_ms']:.2f}",
        f"{row['parameters']:,.0f}",
        f"{row['macs']:,.0f}",
    ]


def print_table_comparison(console: Console, comparison: TableComparison) -> None:
    """Print the regrets of strategies on a ground-truth table, and the reading."""
    metric = find_metric(comparison.metric)
    scale, form = metric.scale, metric.format
    unit = f"{metric.unit_of_difference} of test {metric.title}"
    shown = Table(title=f"regret in {unit}, mean and 95% interval; * not told apart from the best")
    for column in ("strategy", "regret", "interval", "median", "mean rank", "trials", "device s"):
        shown.add_column(column, justify="left" if column == "strategy" else "right")
    for i, row in enumerate(comparison.table.to_dict("records")):
        shown.add_row(
            row["name"],
            format(scale * row["regret"], form),
            f"{scale * row['ci_low']:{form}} – {scale * row['ci_high']:{form}}",
            format(scale * row["median"], form),
            f"{row['mean_rank']:.2f}" + ("*" if row["tied"] and i else ""),
            f"{row['trials']:.0f}",
            f"{row['seconds']:,.0f}",
        )
    print_wide(shown)
    for sentence in comparison.reading:
        say(console, sentence)
    print_files(console, comparison.folder, "regret.png", "strategies.csv")


def print_reliability(console: Console, report: ReliabilityReport) -> None:
    """Print a protocol's reliability at every epoch, and the reading."""
    declared = [metric for metric in report.task.metrics if metric.unit_of_difference]
    units = ", ".join(f"{metric.name} in {metric.unit_of_difference}" for metric in declared)
    table = Table(title=f"reliability of the proxy protocol ({units})")
    for column in (
        "metric", "epoch", "s a\ntrial", "sd\ngenotype", "sd\nseed", "sd\nnoise", "ICC", "95%",
        "ICC of\nall seeds", "tau", "95%", "detectable",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column == "metric" else "right")
    for row in report.table.to_dict("records"):
        metric = report.task.metric(row["metric"])
        scale, form = metric.scale, metric.format
        spreads = [
            format(scale * row[key], form) for key in ("sd_genotype", "sd_seed", "sd_residual")
        ]
        table.add_row(
            row["metric"],
            str(row["epoch"]),
            f"{row['seconds']:.1f}",
            *spreads,
            f"{row['icc']:.2f}",
            f"{row['icc_low']:.2f} – {row['icc_high']:.2f}",
            f"{row['icc_k']:.2f}",
            f"{row['tau']:.2f}",
            f"{row['tau_low']:.2f} – {row['tau_high']:.2f}",
            format(scale * row["detectable"], form),
        )
    print_wide(table)
    files = ["reliability.png", "reliability.csv"]
    if report.validity is not None:
        print_wide(_validity(report.validity))
        files.append("validity.csv")
    for sentence in report.reading:
        say(console, sentence)
    print_files(console, report.folder, *files)


def _validity(validity: pd.DataFrame) -> Table:
    table = Table(title="validity of the proxy protocol: agreement of one trial with final results")
    for column in ("metric", "epoch", "final metric", "tau", "95%", "noise out", "95%", "kept"):
        is_text = column.endswith("metric")
        table.add_column(column, justify="left" if is_text else "right")
    for row in validity.to_dict("records"):
        table.add_row(
            row["metric"],
            str(row["epoch"]),
            row["final_metric"],
            f"{row['tau']:.2f}",
            f"{row['tau_low']:.2f} – {row['tau_high']:.2f}",
            f"{row['true_tau']:.2f}",
            f"{row['true_tau_low']:.2f} – {row['true_tau_high']:.2f}",
            f"{100 * row['kept']:.0f}%",
        )
    return table


def print_search(console: Console, report: SearchReport) -> None:
    """Print the best of a search, and a drawing of its answer."""
    table = Table("rank", "genotype", report.score, title="the best of the search")
    for rank, (genotype, score) in enumerate(report.ranking[:5], start=1):
        # One stage per line, or there is no room for the scores.
        table.add_row(str(rank), str(genotype).replace("+", "+\n"), f"{score:.4f}")
    table.columns[1].no_wrap = True
    table.columns[1].overflow = "fold"
    console.print(table)
    for stage in range(report.genotype.stages):
        if report.genotype.stages > 1:
            say(console, f"\nstage {stage}:")
        say(console, draw(report.genotype.stage(stage)))
    console.print()
    for sentence in report.reading:
        say(console, sentence)
    shown = _shown(report.folder)
    config = shlex.quote(f"{shown}/config.yaml")
    say(console, f"train it: sase-ray train {report.genotype} --config {config}")
    print_places(console, report.folder)


def print_latencies(console: Console, table: LatencyTable) -> None:
    """Print what every operation costs on a device."""
    shown = Table(title=f"ms of {table.batch_size} images on {table.device}")
    shown.add_column("edge")
    shown.add_column("operation")
    shown.add_column("ms", justify="right")
    for edge, operations in table.operations.items():
        for name, ms in sorted(operations.items(), key=lambda item: item[1]):
            shown.add_row(edge, name, f"{ms:.3f}")
    console_for_tables().print(shown)
    say(console, f"the host without attention: {table.host:.3f} ms")


def print_trained(console: Console, trained: Trained) -> None:
    """Print how well a trained network does, and where it is stored."""
    results = [
        f"{name.replace('_', ' ')} {trained.task.metric(name).tell(value)}"
        for name, value in reversed(list(trained.results.items()))  # the final metric first
    ]
    say(console, f"{', '.join(results)}, {trained.seconds:,.0f} s; weights in {trained.path}")


def print_files(console: Console, folder: Path, figure: str, *tables: str) -> None:
    """Print where the tables and the figure of a study are."""
    shown = _shown(folder)
    listed = ", ".join(f"{shown}/{table}" for table in (*tables, "*.parquet"))
    say(console, f"\ntables: {listed}\nfigure: {shown}/{figure}")


def print_places(console: Console, folder: Path) -> None:
    """Print where the tables and TensorBoard's logs of a run are."""
    shown = _shown(folder)
    csv = f", {shown}/strategies.csv" if (folder / "strategies.csv").exists() else ""
    say(
        console,
        f"\ntables:      {shown}/*.parquet{csv}\n"
        f"TensorBoard: tensorboard --logdir {shlex.quote(f'{shown}/tensorboard')}",
    )


def _shown(folder: Path) -> str:
    shown = os.path.relpath(folder)
    return shown if not shown.startswith("..") else str(folder)
