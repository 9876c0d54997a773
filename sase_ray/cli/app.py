"""The command line: `sase-ray compare`, `search`, `show`, and the catalogues."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sase_ray.cli import catalogues, jobs
from sase_ray.cli.options import (
    CLUSTER,
    FOLDER,
    PROBLEM,
    SEARCH,
    flag_of,
    load_settings,
    names_of,
    takes,
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
from sase_ray.console import make_console, say
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
    # A cluster stops a job by this signal; it then ends as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.excepthook = _thread_ended
    os.environ["MPLBACKEND"] = "agg"  # figures are only written, whatever shows them elsewhere
    make_console()  # typer's own output, too, is printed on any terminal
    try:
        app()
    except UserError as error:
        say(make_console(stderr=True), f"error: {error}", style="bold red")
        sys.exit(2)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        say(make_console(stderr=True), f"error: output cannot be written: {error.strerror}")
        sys.exit(1)
    except Exception as error:
        if not type(error).__module__.startswith("ray.exceptions"):
            raise
        say(
            make_console(stderr=True),
            f"error: the Ray cluster failed ({type(error).__name__}); what was finished is in the "
            f"results folder",
        )
        sys.exit(1)


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    # TensorBoard's thread passes a full disk on to the next writer, which reports it in a sentence.
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)


@app.command()
@takes(*PROBLEM, *SEARCH, *FOLDER, *CLUSTER)
def compare(
    given: dict[str, Any],
    strategies: Annotated[
        str | None, typer.Option(help="Names joined by commas; see `sase-ray strategies`.")
    ] = None,
    baselines: Annotated[
        str | None, typer.Option(help="Hand-designed modules joined by commas; '' for none.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Repetitions of every search.")] = None,
    metric: Annotated[str | None, typer.Option(help="Metric to rank by.")] = None,
    on: Annotated[
        str | None,
        typer.Option(
            help="'table', or the path of one made by `sase-ray tabulate`: trainings are looked up "
            "there, not run."
        ),
    ] = None,
    noise: Annotated[
        bool, typer.Option(help="On a table: add the measured noise to trainings.")
    ] = True,
) -> None:
    """Compare search strategies at an equal budget, and train their answers from scratch.

    With `--on table` nothing is trained: hundreds of searches use a ground-truth table.
    """
    console = make_console()
    given |= {"seeds": seeds, "metric": metric}
    if on is not None:
        _compare_on_table(
            console, on, names_of(strategies), noise, given | {"baselines": baselines}
        )
        return
    if not noise:
        raise UserError("--no-noise goes with --on: real trainings have theirs")
    settings = load_settings(
        **given, strategies=names_of(strategies), baselines=names_of(baselines)
    )
    # After the settings are known to be right: loading torch and Ray takes seconds.
    from sase_ray.commands.compare import compare as run_comparison

    print_comparison(console, run_comparison(settings, console=console))


def _compare_on_table(
    console: Console, table: str, strategies: list[str] | None, noise: bool, given: dict[str, Any]
) -> None:
    own = ("budget", "seeds", "metric", "results", "run")
    wrong = [name for name, value in given.items() if value and name not in (*own, *CLUSTER)]
    if wrong:
        raise UserError(
            f"{flag_of(wrong[0])} does not go with --on: the table has been trained already"
        )
    settings = load_settings(**{name: given[name] for name in (*own, *CLUSTER)})
    from sase_ray.commands.compare_on_table import compare_on_table

    comparison = compare_on_table(
        None if table == "table" else table,
        strategies,
        resources=settings.resources,
        noise=noise,
        console=console,
        # Options that are not given have other defaults on a table.
        **{name: getattr(settings, name) for name in own if given[name] is not None},
    )
    print_table_comparison(console, comparison)


@app.command()
@takes(*PROBLEM, *SEARCH, *FOLDER, *CLUSTER)
def search(
    strategy: Annotated[str, typer.Argument(help="See `sase-ray strategies`.")],
    given: dict[str, Any],
) -> None:
    """Run one strategy once; print its answer, how good that is, and how to train it."""
    console = make_console()
    settings = load_settings(**given)
    from sase_ray.commands.search import search as run_one

    print_search(console, run_one(strategy, settings, console=console))


@app.command()
@takes(*PROBLEM)
def train(
    module: Annotated[str, typer.Argument(help="A genotype, or none, se, eca, cbam.")],
    given: dict[str, Any],
    output: Annotated[Path | None, typer.Option(help="File of the weights.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of initial weights and batches.")] = None,
) -> None:
    """Train one module from scratch by the final protocol, and keep the network."""
    console = make_console()
    settings = load_settings(**given)
    from sase_ray.commands.train import train as run_training

    own = {} if seed is None else {"seed": seed}
    print_trained(console, run_training(module, settings, output=output, console=console, **own))


@app.command()
@takes(*PROBLEM)
def latency(
    table: Annotated[Path, typer.Argument(help="JSON file to write.")], given: dict[str, Any]
) -> None:
    """Measure the latency of every operation on this device, for fbnet and prunet."""
    console = make_console()
    settings = load_settings(**given)
    from sase_ray.execution.experiment import Problem
    from trainables.hardware.device import take_device
    from trainables.one_shot.latency_table import LatencyTable

    problem = Problem.of(settings)
    measured = LatencyTable.measure(problem.network, problem.space, take_device(problem.threads))
    measured.save(table)
    print_latencies(console, measured)


@app.command()
@takes(*CLUSTER)
def resume(
    run: Annotated[str, typer.Argument(help="Folder of the run, or its path in the storage.")],
    given: dict[str, Any],
) -> None:
    """Continue an interrupted run; what is finished is not run again."""
    console = make_console()
    from sase_ray.commands.resume import resume as go_on

    resources = {name: value for name, value in given.items() if value is not None}
    print_report(console, go_on(run, console=console, **resources))


@app.command()
@takes(*PROBLEM, *CLUSTER)
def tabulate(
    table: Annotated[Path, typer.Argument(help="Parquet file to write or to continue.")],
    given: dict[str, Any],
    repeated: Annotated[int, typer.Option(help="Genotypes to train with all seeds.")] = 100,
    seeds: Annotated[int, typer.Option(help="Trainings of each of these.", min=1)] = 3,
    minutes: Annotated[float | None, typer.Option(help="Begin none after these minutes.")] = None,
) -> None:
    """Train all genotypes of a small space into a ground-truth table, or continue one."""
    console = make_console()
    settings = load_settings(**given)
    from sase_ray.commands.tabulate import tabulate as run_tabulate

    missing = run_tabulate(
        table, settings, repeated=repeated, seeds=seeds, minutes=minutes, console=console
    )
    if missing:
        console.print(f"{missing:,} trainings are missing: run the same command again")


@app.command()
@takes(*PROBLEM, *FOLDER, *CLUSTER)
def reliability(
    given: dict[str, Any],
    genotypes: Annotated[int, typer.Option(help="Random genotypes to train.")] = 24,
    seeds: Annotated[int, typer.Option(help="Trainings of each.")] = 4,
    final: Annotated[
        int, typer.Option(help="Final trainings of each, to measure validity; 0 for none.")
    ] = 0,
) -> None:
    """Measure how reliably the proxy protocol ranks genotypes, and how validly with --final."""
    console = make_console()
    settings = load_settings(**given)
    from sase_ray.commands.reliability import measure_reliability

    report = measure_reliability(
        settings, genotypes=genotypes, seeds=seeds, final=final, console=console
    )
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
    """Write a report of a run, or of several in one table."""
    from sase_ray.report import write_report

    path = write_report(runs, form, output)  # type: ignore[arg-type]
    say(make_console(), f"report: {os.path.relpath(path)}")
    if show_it:
        webbrowser.open(path.resolve().as_uri())


for command in (
    jobs.submit, catalogues.strategies, catalogues.spaces,
    catalogues.datasets, catalogues.backbones, catalogues.show,
):  # fmt: skip
    app.command()(command)
