"""The command line: `sase-ray compare`, `search`, `show`, and the catalogues."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from search_spaces.errors import UserError

app = typer.Typer(
    name="sase-ray",
    help="Search for the best attention module of a vision network, and compare the strategies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file with the keys of config.yaml.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One value, e.g. proxy.epochs=5; repeatable."),
]
Dataset = Annotated[str | None, typer.Option(help="See `sase-ray datasets`.")]
Space = Annotated[str | None, typer.Option(help="See `sase-ray spaces`; or a YAML file.")]
Backbone = Annotated[str | None, typer.Option(help="See `sase-ray backbones`.")]
Budget = Annotated[str | None, typer.Option(help="Training samples a search, e.g. 1e6.")]
Root = Annotated[str | None, typer.Option("--data-root", help="Folder of the data set.")]
Results = Annotated[str | None, typer.Option(help="Folder in which the run's folder is made.")]
RunName = Annotated[str | None, typer.Option("--run", help="Name of the run's folder.")]
Address = Annotated[str | None, typer.Option(help="Ray cluster to join; 'auto' for a running one.")]
Cpus = Annotated[float | None, typer.Option("--cpus-per-trial")]
Gpus = Annotated[float | None, typer.Option("--gpus-per-trial", help="A fraction shares a GPU.")]


INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def main() -> None:
    """Run the command line; a mistake of the user ends with one sentence and exit code 2."""
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:  # of which typer itself says nothing
            Console(stderr=True).print(
                "stopped; the tables of the searches that had ended are in the results folder",
                soft_wrap=True,
            )
        raise
    except UserError as error:
        Console(stderr=True).print(
            f"error: {error}", style="bold red", highlight=False, markup=False, soft_wrap=True
        )
        sys.exit(2)
    except Exception as error:
        if not type(error).__module__.startswith("ray.exceptions"):
            raise
        Console(stderr=True).print(
            f"error: the Ray cluster failed ({type(error).__name__}); what was finished is in the "
            f"results folder",
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(1)


@app.command()
def compare(
    config: ConfigFile = None,
    assignments: Assignments = None,
    dataset: Dataset = None,
    strategies: Annotated[
        str | None, typer.Option(help="Names joined by commas; see `sase-ray strategies`.")
    ] = None,
    baselines: Annotated[
        str | None, typer.Option(help="Hand-designed modules joined by commas; '' for none.")
    ] = None,
    budget: Budget = None,
    seeds: Annotated[int | None, typer.Option(help="Repetitions of every search.")] = None,
    space: Space = None,
    backbone: Backbone = None,
    metric: Annotated[str | None, typer.Option(help="val_loss or val_accuracy.")] = None,
    data_root: Root = None,
    results: Results = None,
    run: RunName = None,
    address: Address = None,
    cpus_per_trial: Cpus = None,
    gpus_per_trial: Gpus = None,
    on: Annotated[
        str | None,
        typer.Option(
            help="'table', or the path of one made by `sase-ray tabulate`: look trainings up "
            "instead of doing them."
        ),
    ] = None,
    noise: Annotated[
        bool, typer.Option(help="On a table: draw trainings with their measured noise.")
    ] = True,
) -> None:
    """Compare search strategies at equal budget, and train what they find from scratch.

    With `--on table` nothing is trained: hundreds of searches read a table of truth.
    """
    console = Console()
    if on is None and not noise:
        raise UserError("--no-noise goes with --on: real trainings have theirs")
    if on is not None:
        given = {
            "--config": config, "--set": assignments, "--dataset": dataset, "--space": space,
            "--backbone": backbone, "--baselines": baselines, "--data-root": data_root,
        }  # fmt: skip
        wrong = [option for option, value in given.items() if value]
        if wrong:
            raise UserError(f"{wrong[0]} does not go with --on: the table has been trained already")
        _compare_on_table(
            console,
            None if on == "table" else on,
            _names(strategies),
            budget=budget,
            seeds=seeds,
            metric=metric,
            noise=noise,
            results=results,
            run=run,
            resources=_resources(address, cpus_per_trial, gpus_per_trial),
        )
        return
    settings = _load(
        config,
        assignments,
        dataset=dataset,
        strategies=_names(strategies),
        baselines=_names(baselines),
        budget=budget,
        seeds=seeds,
        space=space,
        metric=metric,
        results=results,
        run=run,
        backbone=backbone,
        data_root=data_root,
        resources=_resources(address, cpus_per_trial, gpus_per_trial),
    )
    # After the settings are known to be right: loading torch and Ray takes seconds.
    from sase_ray.comparison import compare as run_comparison

    comparison = run_comparison(settings, console=console)
    _print_comparison(console, comparison)


@app.command()
def search(
    strategy: Annotated[str, typer.Argument(help="See `sase-ray strategies`.")],
    config: ConfigFile = None,
    assignments: Assignments = None,
    dataset: Dataset = None,
    budget: Budget = None,
    space: Space = None,
    backbone: Backbone = None,
    data_root: Root = None,
    results: Results = None,
    run: RunName = None,
    address: Address = None,
    cpus_per_trial: Cpus = None,
    gpus_per_trial: Gpus = None,
) -> None:
    """Run one strategy once; ends with the genotype it found and what is second best."""
    console = Console()
    settings = _load(
        config,
        assignments,
        dataset=dataset,
        budget=budget,
        space=space,
        results=results,
        run=run,
        backbone=backbone,
        data_root=data_root,
        resources=_resources(address, cpus_per_trial, gpus_per_trial),
    )
    from sase_ray.comparison import search as run_one
    from sase_ray.drawing import draw

    report = run_one(strategy, settings, console=console)
    table = Table("rank", "genotype", report.score)
    for rank, (genotype, score) in enumerate(report.ranking[:5], start=1):
        table.add_row(str(rank), str(genotype), f"{score:.4f}")
    console.print(table)
    for stage in range(report.genotype.stages):
        console.print(
            draw(report.genotype.stage(stage)), highlight=False, markup=False, soft_wrap=True
        )
    _print_places(console, report.folder)


@app.command()
def tabulate(
    table: Annotated[Path, typer.Argument(help="Parquet file to make, or to go on with.")],
    config: ConfigFile = None,
    assignments: Assignments = None,
    repeated: Annotated[int, typer.Option(help="Genotypes to train with all seeds.")] = 100,
    seeds: Annotated[int, typer.Option(help="How often these are trained.", min=1)] = 3,
    minutes: Annotated[float | None, typer.Option(help="Begin nothing new after these.")] = None,
    dataset: Dataset = None,
    space: Space = None,
    backbone: Backbone = None,
    data_root: Root = None,
    address: Address = None,
    cpus_per_trial: Cpus = None,
    gpus_per_trial: Gpus = None,
) -> None:
    """Train a whole (small) space into a table of truth; goes on where it stopped."""
    console = Console()
    settings = _load(
        config,
        assignments,
        dataset=dataset,
        space=space,
        backbone=backbone,
        data_root=data_root,
        resources=_resources(address, cpus_per_trial, gpus_per_trial),
    )
    from sase_ray.tabulate import tabulate as run_tabulate

    missing = run_tabulate(
        table, settings, repeated=repeated, seeds=seeds, minutes=minutes, console=console
    )
    if missing:
        console.print(f"{missing:,} trainings are missing: run the same command again")


@app.command()
def reliability(
    config: ConfigFile = None,
    assignments: Assignments = None,
    genotypes: Annotated[int, typer.Option(help="Random genotypes to train.")] = 24,
    seeds: Annotated[int, typer.Option(help="How often each is trained.")] = 4,
    dataset: Dataset = None,
    space: Space = None,
    backbone: Backbone = None,
    data_root: Root = None,
    results: Results = None,
    run: RunName = None,
    address: Address = None,
    cpus_per_trial: Cpus = None,
    gpus_per_trial: Gpus = None,
) -> None:
    """Measure how far the proxy protocol ranks genotypes, and not seeds."""
    console = Console()
    settings = _load(
        config,
        assignments,
        dataset=dataset,
        space=space,
        results=results,
        run=run,
        backbone=backbone,
        data_root=data_root,
        resources=_resources(address, cpus_per_trial, gpus_per_trial),
    )
    from sase_ray.measurement import measure_reliability

    report = measure_reliability(settings, genotypes=genotypes, seeds=seeds, console=console)
    _print_reliability(report)
    for sentence in report.reading:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    shown = _shown(report.folder)
    console.print(
        f"\ntables: {shown}/reliability.csv, {shown}/*.parquet\nfigure: {shown}/reliability.png",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


@app.command()
def show(
    genotype: Annotated[str, typer.Argument(help="Text form, six operations joined by '-'.")],
    space: Annotated[str, typer.Option(help="Space to check it against.")] = "sase",
    backbone: Annotated[str, typer.Option(help="Host to count parameters in.")] = "resnet20",
    channels: Annotated[int, typer.Option(help="Channels of a single block.", min=1)] = 64,
    image_size: Annotated[int, typer.Option(help="Height and width of the images.", min=1)] = 32,
) -> None:
    """Tell what a genotype is: its edges, parameters, multiply-accumulates, and a drawing."""
    from sase_ray.drawing import draw
    from sase_ray.showing import block_cost, describe_edges, host_costs
    from search_spaces.ops import load_operations
    from search_spaces.space import SearchSpace

    loaded = SearchSpace.load(space)
    load_operations(loaded)
    parsed = loaded.parse(genotype)
    plain, attended = host_costs(parsed, backbone, image_size)
    console = _console_for_tables()
    for stage in range(parsed.stages):
        block = parsed.stage(stage)
        title = f"{block}" if parsed.stages == 1 else f"stage {stage}: {block}"
        table = Table("edge", "operation", "what it does", "source", title=title)
        for row in describe_edges(block):
            table.add_row(*map(escape, row))
        console.print(table)
        console.print(draw(block), highlight=False, markup=False, soft_wrap=True)
        cost = block_cost(block, channels, (14, 14))
        console.print(
            f"one block, {channels} channels, 14x14: {cost.parameters:,} parameters, "
            f"{cost.macs:,} multiply-accumulates",
            highlight=False,
        )
    console.print(
        f"in {backbone}, {image_size}x{image_size}: {attended.parameters:,} parameters "
        f"({attended.parameters - plain.parameters:+,}), {attended.macs:,} multiply-accumulates "
        f"({attended.macs - plain.macs:+,})",
        highlight=False,
    )


@app.command()
def strategies() -> None:
    """List the search strategies."""
    from sase_ray.strategies import strategies as catalogue

    rows = [(s.name, s.family, s.summary, s.source) for s in catalogue().values()]
    _print_catalogue(("strategy", "family", "what it does", "source"), rows)


@app.command()
def spaces() -> None:
    """List the bundled search spaces."""
    from search_spaces.space import SearchSpace, space_names

    loaded = [SearchSpace.load(name) for name in space_names()]
    rows = [
        (s.name, f"{s.size:,}", "shared" if s.stages == 1 else "a stage", s.source) for s in loaded
    ]
    _print_catalogue(("space", "genotypes", "one block", "source"), rows)


@app.command()
def datasets() -> None:
    """List the data sets."""
    from sase_ray.config import presets
    from trainables.data import datasets as catalogue

    rows = [
        (d.name, d.summary, "yes" if d.name in presets() else "", d.source) for d in catalogue()
    ]
    _print_catalogue(("data set", "what it is", "preset", "source"), rows)


@app.command()
def backbones() -> None:
    """List the host networks, and the hand-designed modules to compare with."""
    from search_spaces.backbones import backbones as catalogue
    from search_spaces.baselines import baselines as modules

    rows = [(b.name, str(b.stages), b.summary, b.source) for b in catalogue()]
    rows.append(("timm:NAME", "1", "any timm network that takes an attention layer", "timm"))
    _print_catalogue(("backbone", "stages", "what it is", "source"), rows)
    _print_catalogue(
        ("baseline", "what it does", "source"), [(m.name, m.summary, m.source) for m in modules()]
    )


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [name.strip() for name in text.split(",") if name.strip()]


def _resources(
    address: str | None, cpus: float | None, gpus: float | None
) -> dict[str, Any] | None:
    given = {"address": address, "cpus_per_trial": cpus, "gpus_per_trial": gpus}
    return {key: value for key, value in given.items() if value is not None} or None


def _load(
    config: Path | None,
    assignments: list[str] | None,
    *,
    backbone: str | None,
    data_root: str | None,
    **options: Any,
) -> Any:
    from sase_ray.config import load_config

    given = {key: value for key, value in options.items() if value is not None}
    if backbone is not None:
        given["backbone"] = {"name": backbone}
    if data_root is not None:
        given["data"] = {"root": data_root}
    return load_config(config, given, assignments or ())


def _print_catalogue(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*head)
    for row in rows:
        table.add_row(*map(escape, row))
    _console_for_tables().print(table)


def _console_for_tables() -> Console:
    # Piped into a file or grep, a table must not be broken to 80 columns.
    console = Console()
    return console if console.is_terminal else Console(width=240)


def _print_comparison(console: Console, comparison: Any) -> None:
    table = Table(title="test accuracy in %, mean and 95% interval over independent searches")
    columns = (
        "module by", "accuracy", "interval", "vs random", "p (Holm)", "samples", "device s",
        "trials", "parameters", "MACs", "latency ms",
    )  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column == "module by" else "right")
    for row in comparison.table.to_dict("records"):
        table.add_row(*_cells(row))
    wide = console if console.is_terminal else Console(width=200)
    wide.print(table)
    for outcome in comparison.outcomes:
        console.print(
            f"{outcome.strategy}/seed{outcome.seed} found {outcome.genotype}",
            highlight=False,
            soft_wrap=True,
        )
    for reason in comparison.failures.values():
        console.print(
            f"failed: {reason}", style="red", highlight=False, markup=False, soft_wrap=True
        )
    console.print()
    for sentence in comparison.reading:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    _print_places(console, comparison.folder)


def _cells(row: dict[str, Any]) -> list[str]:
    def number(value: float, form: str) -> str:
        return "" if value != value else format(value, form)

    interval = ""
    if row["ci_low"] == row["ci_low"]:
        interval = f"{100 * max(0, row['ci_low']):.2f} – {100 * min(1, row['ci_high']):.2f}"
    return [
        row["name"],
        f"{100 * row['test_accuracy']:.2f}",
        interval,
        number(100 * row["difference"], "+.2f"),
        number(row["p_holm"], ".3f") + ("*" if row["significant"] else ""),
        f"{row['search_samples']:,.0f}",
        f"{row['search_seconds']:,.0f}",
        f"{row['trials']:,.0f}",
        f"{row['parameters']:,.0f}",
        f"{row['macs']:,.0f}",
        f"{row['latency_ms']:.2f}",
    ]


def _compare_on_table(
    console: Console,
    table: str | None,
    names: list[str] | None,
    *,
    budget: str | None,
    resources: dict[str, Any] | None,
    **options: Any,
) -> None:
    from sase_ray.config import load_config

    # So that a budget of 1e6 and the resources are read, and refused, as everywhere.
    checked = load_config(
        None, {"budget": budget or 1, **({"resources": resources} if resources else {})}
    )
    from sase_ray.table_comparison import compare_on_table

    comparison = compare_on_table(
        table,
        names,
        budget=checked.budget if budget else None,
        resources=checked.resources,
        console=console,
        **{key: value for key, value in options.items() if value is not None},
    )
    loss = options.get("metric") != "val_accuracy"
    scale, form = (1, ".4f") if loss else (100, ".2f")
    unit = "nats of test cross-entropy" if loss else "points of test accuracy"
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
    _console_for_tables().print(shown)
    for sentence in comparison.reading:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    folder = _shown(comparison.folder)
    console.print(
        f"\ntables: {folder}/strategies.csv, {folder}/*.parquet\nfigure: {folder}/regret.png",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _print_reliability(report: Any) -> None:
    table = Table(title="reliability of the proxy protocol (losses in nats, accuracies in points)")
    for column in (
        "metric", "epoch", "s a trial", "sd genotype", "sd seed", "sd noise", "ICC", "95%",
        "ICC of all seeds", "tau", "95%", "detectable",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column == "metric" else "right")
    for row in report.table.to_dict("records"):
        loss = row["metric"].endswith("loss")
        scale, form = (1, ".4f") if loss else (100, ".2f")
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
    _console_for_tables().print(table)


def _shown(folder: Path) -> str:
    shown = os.path.relpath(folder)
    return shown if not shown.startswith("..") else str(folder)


def _print_places(console: Console, folder: Path) -> None:
    shown = _shown(folder)
    csv = f", {shown}/strategies.csv" if (folder / "strategies.csv").exists() else ""
    console.print(
        f"\ntables:      {shown}/*.parquet{csv}\n"
        f"TensorBoard: tensorboard --logdir {shown}/tensorboard",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
