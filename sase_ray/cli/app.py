"""The command line: `sase-ray compare`, `search`, `show`, and the catalogues."""

from __future__ import annotations

import os
import signal
import sys
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sase_ray.cli.output import (
    print_catalogue,
    print_comparison,
    print_job,
    print_latencies,
    print_reliability,
    print_report,
    print_search,
    print_table_comparison,
    print_trained,
    say,
)
from search_spaces.errors import UserError

if TYPE_CHECKING:
    from sase_ray.config import Config

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
Storage = Annotated[
    str | None, typer.Option(help="Folder or URI (s3://...) that all nodes reach, for checkpoints.")
]
WarmStart = Annotated[
    str | None,
    typer.Option(
        help="Folder of a run; a strategy X+Y is X that begins with what Y ranked best there."
    ),
]
Agreement = Annotated[
    str | None,
    typer.Option(
        help="'table' or a table's path: how far one-shot searches rank as the truth does."
    ),
]
Address = Annotated[str | None, typer.Option(help="Ray cluster to join; 'auto' for a running one.")]
JobAddress = Annotated[
    str | None,
    typer.Option("--address", help="Of the cluster's dashboard, e.g. http://head:8265."),
]
JobId = Annotated[str, typer.Argument(help="As `sase-ray submit` told it.")]
Cpus = Annotated[float | None, typer.Option("--cpus-per-trial")]
Gpus = Annotated[float | None, typer.Option("--gpus-per-trial", help="A fraction shares a GPU.")]


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
        settings = _load(None, None, **options, **resources)  # read and refused as everywhere
        from sase_ray.commands.compare_on_table import compare_on_table

        comparison = compare_on_table(
            None if on == "table" else on,
            _names(strategies),
            resources=settings.resources,
            noise=noise,
            console=console,
            # What is not given has defaults of its own on a table.
            **{key: getattr(settings, key) for key, value in options.items() if value is not None},
        )
        print_table_comparison(console, comparison)
        return
    settings = _load(
        config,
        assignments,
        dataset=dataset,
        strategies=_names(strategies),
        baselines=_names(baselines),
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
    settings = _load(
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
    from sase_ray.commands.compare import search as run_one

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
    settings = _load(
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
    settings = _load(
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
    settings = _load(
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
    settings = _load(
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
def submit(
    config: Annotated[Path, typer.Option("--config", "-c", help="As for `compare`.")],
    assignments: Assignments = None,
    address: JobAddress = None,
    working_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder to send; '.' in a checkout of this project that the cluster has not got. "
            "Default: the configuration and its space."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="JOB_ID to give the job.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--detach", help="Show the log until the job has ended.")
    ] = False,
) -> None:
    """Run a comparison as a job of a Ray cluster."""
    from sase_ray.cluster import job_client

    console = Console()
    job_id = job_client.submit(
        config, assignments or (), address=address, working_dir=working_dir, job_id=name
    )
    say(console, f"submitted {job_id}")
    at = f" --address {job_client.without_password(address)}" if address else ""
    ways = f"`sase-ray status {job_id}{at}` tells of it, `sase-ray stop {job_id}{at}` stops it"
    if not follow:
        say(console, ways)
        return
    try:
        job = job_client.follow(job_id, address, lambda line: say(console, line))
    except KeyboardInterrupt:
        say(Console(stderr=True), f"the job goes on: {ways}")
        raise typer.Exit(1) from None
    print_job(console, job)
    if job.state != "SUCCEEDED":
        raise typer.Exit(1)


@app.command()
def status(job_id: JobId, address: JobAddress = None) -> None:
    """Tell how a submitted job is doing."""
    from sase_ray.cluster import job_client

    print_job(Console(), job_client.status(job_id, address))


@app.command()
def stop(job_id: JobId, address: JobAddress = None) -> None:
    """Stop a submitted job."""
    from sase_ray.cluster import job_client

    print_job(Console(), job_client.stop(job_id, address))


@app.command()
def show(
    genotype: Annotated[str, typer.Argument(help="Text form, six operations joined by '-'.")],
    space: Annotated[str, typer.Option(help="Space to check it against.")] = "sase",
    backbone: Annotated[str, typer.Option(help="Host to count parameters in.")] = "resnet20",
    channels: Annotated[int, typer.Option(help="Channels of a single block.", min=1)] = 64,
    image_size: Annotated[int, typer.Option(help="Height and width of the images.", min=1)] = 32,
) -> None:
    """Tell what a genotype is: its edges, parameters, multiply-accumulates, and a drawing."""
    from sase_ray.cli.show_genotype import print_genotype
    from search_spaces.ops import load_operations
    from search_spaces.space import SearchSpace

    loaded = SearchSpace.load(space)
    load_operations(loaded)
    print_genotype(loaded.parse(genotype), backbone, channels, image_size)


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


@app.command()
def strategies() -> None:
    """List the search strategies."""
    from sase_ray.strategies import strategies as catalogue

    rows = [(s.name, s.family, s.summary, s.source) for s in catalogue().values()]
    print_catalogue(("strategy", "family", "what it does", "source"), rows)


@app.command()
def spaces() -> None:
    """List the bundled search spaces."""
    from search_spaces.space import SearchSpace, space_names

    loaded = [SearchSpace.load(name) for name in space_names()]
    rows = [
        (s.name, f"{s.size:,}", "shared" if s.stages == 1 else "a stage", s.source) for s in loaded
    ]
    print_catalogue(("space", "genotypes", "one block", "source"), rows)


@app.command()
def datasets() -> None:
    """List the data sets."""
    from sase_ray.config import presets
    from trainables.data import datasets as catalogue

    rows = [
        (d.name, d.summary, "yes" if d.name in presets() else "", d.source) for d in catalogue()
    ]
    print_catalogue(("data set", "what it is", "preset", "source"), rows)


@app.command()
def backbones() -> None:
    """List the host networks, and the hand-designed modules to compare with."""
    from search_spaces.backbones import backbones as catalogue
    from search_spaces.baselines import baselines as modules

    rows = [(b.name, str(b.stages), b.summary, b.source) for b in catalogue()]
    rows.append(("timm:NAME", "1", "any timm network that takes an attention layer", "timm"))
    print_catalogue(("backbone", "stages", "what it is", "source"), rows)
    print_catalogue(
        ("baseline", "what it does", "source"), [(m.name, m.summary, m.source) for m in modules()]
    )


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [name.strip() for name in text.split(",") if name.strip()]


def _load(config: Path | None, assignments: list[str] | None, **options: Any) -> Config:
    """Build the configuration of a command from its options; those not given are None."""
    from sase_ray.config import load_config

    places = {
        "backbone": ("backbone", "name"),
        "data_root": ("data", "root"),
        "address": ("resources", "address"),
        "cpus_per_trial": ("resources", "cpus_per_trial"),
        "gpus_per_trial": ("resources", "gpus_per_trial"),
    }
    given: dict[str, Any] = {}
    for option, value in options.items():
        if value is None:
            continue
        if option in places:
            section, key = places[option]
            given.setdefault(section, {})[key] = value
        else:
            given[option] = value
    return load_config(config, given, assignments or ())
