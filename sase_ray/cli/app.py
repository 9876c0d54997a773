"""The command line: `sase-ray compare`, `search`, `show`, and the catalogues."""

from __future__ import annotations

import os
import signal
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sase_ray.cli import catalogues, jobs
from sase_ray.cli.options import (
    Address,
    Agreement,
    Assignments,
    Backbone,
    Budget,
    ConfigFile,
    Cpus,
    Dataset,
    Gpus,
    Results,
    Root,
    RunName,
    Space,
    Storage,
    WarmStart,
    load_settings,
    names_of,
)
from sase_ray.cli.output import (
    print_comparison,
    print_latencies,
    print_reliability,
    print_report,
    print_search,
    print_table_comparison,
    print_trained,
)
from sase_ray.console import say
from search_spaces.errors import UserError

app = typer.Typer(
    name="sase-ray",
    help="Search for the best attention module of a vision network, and compare the strategies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; a mistake of the user ends with one sentence and exit code 2."""
    # As a cluster stops a job; it ends as Ctrl-C ends it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.excepthook = _thread_ended
    try:
        app()
    except UserError as error:
        say(Console(stderr=True), f"error: {error}", style="bold red")
        sys.exit(2)
    except Exception as error:
        if not type(error).__module__.startswith("ray.exceptions"):
            raise
        say(
            Console(stderr=True),
            f"error: the Ray cluster failed ({type(error).__name__}); what was finished is in the "
            f"results folder",
        )
        sys.exit(1)


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    # Of a full disk, TensorBoard's thread tells whoever writes next, who says it in a sentence.
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)


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
    warm_start_from: WarmStart = None,
    agreement: Agreement = None,
    data_root: Root = None,
    results: Results = None,
    run: RunName = None,
    storage: Storage = None,
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
    options = {"budget": budget, "seeds": seeds, "metric": metric, "results": results, "run": run}
    resources = {
        "address": address, "cpus_per_trial": cpus_per_trial, "gpus_per_trial": gpus_per_trial,
    }  # fmt: skip
    if on is None and not noise:
        raise UserError("--no-noise goes with --on: real trainings have theirs")
    if on is not None:
        given = {
            "--config": config, "--set": assignments, "--dataset": dataset, "--space": space,
            "--backbone": backbone, "--baselines": baselines, "--data-root": data_root,
            "--storage": storage, "--warm-start-from": warm_start_from, "--agreement": agreement,
        }  # fmt: skip
        wrong = [option for option, value in given.items() if value]
        if wrong:
            raise UserError(f"{wrong[0]} does not go with --on: the table has been trained already")
        settings = load_settings(
            None, None, **options, **resources
        )  # read and refused as everywhere
        from sase_ray.commands.compare_on_table import compare_on_table

        comparison = compare_on_table(
            None if on == "table" else on,
            names_of(strategies),
            resources=settings.resources,
            noise=noise,
            console=console,
            # What is not given has defaults of its own on a table.
            **{key: getattr(settings, key) for key, value in options.items() if value is not None},
        )
        print_table_comparison(console, comparison)
        return
    settings = load_settings(
        config,
        assignments,
        dataset=dataset,
        strategies=names_of(strategies),
        baselines=names_of(baselines),
        space=space,
        backbone=backbone,
        warm_start_from=warm_start_from,
        agreement=agreement,
        data_root=data_root,
        storage=storage,
        **options,
        **resources,
    )
    # After the settings are known to be right: loading torch and Ray takes seconds.
    from sase_ray.commands.compare import compare as run_comparison

    print_comparison(console, run_comparison(settings, console=console))


@app.command()
def search(
    strategy: Annotated[str, typer.Argument(help="See `sase-ray strategies`.")],
    config: ConfigFile = None,
    assignments: Assignments = None,
    dataset: Dataset = None,
    budget: Budget = None,
    space: Space = None,
    backbone: Backbone = None,
    warm_start_from: WarmStart = None,
    agreement: Agreement = None,
    data_root: Root = None,
    results: Results = None,
    run: RunName = None,
    storage: Storage = None,
    address: Address = None,
    cpus_per_trial: Cpus = None,
    gpus_per_trial: Gpus = None,
) -> None:
    """Run one strategy once; ends with its answer, what that is worth, and how to train it."""
    console = Console()
    settings = load_settings(
        config,
        assignments,
        dataset=dataset,
        budget=budget,
        space=space,
        results=results,
        run=run,
        storage=storage,
        backbone=backbone,
        warm_start_from=warm_start_from,
        agreement=agreement,
        data_root=data_root,
        address=address,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
    )
    from sase_ray.commands.search import search as run_one

    print_search(console, run_one(strategy, settings, console=console))


@app.command()
def train(
    module: Annotated[str, typer.Argument(help="A genotype, or none, se, eca, cbam.")],
    config: ConfigFile = None,
    assignments: Assignments = None,
    dataset: Dataset = None,
    space: Space = None,
    backbone: Backbone = None,
    data_root: Root = None,
    output: Annotated[Path | None, typer.Option(help="File of the weights.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of initial weights and batches.")] = None,
) -> None:
    """Train one module from scratch by the final protocol, and keep the network."""
    console = Console()
    settings = load_settings(
        config, assignments, dataset=dataset, space=space, backbone=backbone, data_root=data_root
    )
    from sase_ray.commands.train import train as run_training

    given = {} if seed is None else {"seed": seed}
    trained = run_training(module, settings, output=output, console=console, **given)
    print_trained(console, trained)


@app.command()
def latency(
    table: Annotated[Path, typer.Argument(help="JSON file to write.")],
    config: ConfigFile = None,
    assignments: Assignments = None,
    dataset: Dataset = None,
    space: Space = None,
    backbone: Backbone = None,
    data_root: Root = None,
) -> None:
    """Measure what every operation costs on this device, for fbnet and prunet."""
    console = Console()
    settings = load_settings(
        config, assignments, dataset=dataset, space=space, backbone=backbone, data_root=data_root
    )
    from sase_ray.config import without_searches
    from sase_ray.execution.experiment import Setup
    from trainables.hardware.device import take_device
    from trainables.one_shot.latency_table import LatencyTable

    setup = Setup.of(without_searches(settings))
    measured = LatencyTable.measure(setup.network, setup.space, take_device(setup.threads))
    measured.save(table)
    print_latencies(console, measured)


@app.command()
def resume(
    run: Annotated[str, typer.Argument(help="Folder of the run, or its place in the storage.")],
    address: Address = None,
    cpus_per_trial: Cpus = None,
    gpus_per_trial: Gpus = None,
) -> None:
    """Go on with a run that was interrupted; nothing that it has done is done again."""
    console = Console()
    resources = {
        "address": address, "cpus_per_trial": cpus_per_trial, "gpus_per_trial": gpus_per_trial,
    }  # fmt: skip
    from sase_ray.commands.resume import resume as go_on

    given = {key: value for key, value in resources.items() if value is not None}
    print_report(console, go_on(run, console=console, **given))


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
    settings = load_settings(
        config,
        assignments,
        dataset=dataset,
        space=space,
        backbone=backbone,
        data_root=data_root,
        address=address,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
    )
    from sase_ray.commands.tabulate import tabulate as run_tabulate

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
    storage: Storage = None,
    address: Address = None,
    cpus_per_trial: Cpus = None,
    gpus_per_trial: Gpus = None,
) -> None:
    """Measure how far the proxy protocol ranks genotypes, and not seeds."""
    console = Console()
    settings = load_settings(
        config,
        assignments,
        dataset=dataset,
        space=space,
        results=results,
        run=run,
        storage=storage,
        backbone=backbone,
        data_root=data_root,
        address=address,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
    )
    from sase_ray.commands.reliability import measure_reliability

    report = measure_reliability(settings, genotypes=genotypes, seeds=seeds, console=console)
    print_reliability(console, report)


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(help="Folders of runs, results/<run>.")],
    form: Annotated[
        str, typer.Option("--format", help="html (one page), md or latex (for papers).")
    ] = "html",
    output: Annotated[
        Path | None, typer.Option(help="File to write; default report.html in the run's folder.")
    ] = None,
    show_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write a page on a run, or on several beside each other."""
    from sase_ray.report import write_report

    path = write_report(runs, form, output)  # type: ignore[arg-type]
    say(Console(), f"report: {os.path.relpath(path)}")
    if show_it:
        webbrowser.open(path.resolve().as_uri())


for command in (
    jobs.submit, catalogues.strategies, catalogues.spaces,
    catalogues.datasets, catalogues.backbones, catalogues.show,
):  # fmt: skip
    app.command()(command)
