"""Commands for jobs of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sase_ray.cli.options import (
    Assignments,
    JobAddress,
    JobId,
)
from sase_ray.cli.output import (
    print_job,
)
from sase_ray.console import say


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
    from sase_ray.commands.submit import submit as start

    console = Console()
    job_id = start(config, assignments or (), address=address, working_dir=working_dir, job_id=name)
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


def status(job_id: JobId, address: JobAddress = None) -> None:
    """Tell how a submitted job is doing."""
    from sase_ray.cluster import job_client

    print_job(Console(), job_client.status(job_id, address))


def stop(job_id: JobId, address: JobAddress = None) -> None:
    """Stop a submitted job."""
    from sase_ray.cluster import job_client

    print_job(Console(), job_client.stop(job_id, address))
