"""The command that sends a comparison to a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sase_ray.cli.options import Assignments
from sase_ray.console import make_console, say


def submit(
    config: Annotated[Path, typer.Option("--config", "-c", help="File, as for `compare`.")],
    assignments: Assignments = None,
    address: Annotated[
        str | None, typer.Option(help="Address of the cluster's dashboard, e.g. http://head:8265.")
    ] = None,
    working_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder to send: '.' in a checkout of this project, if the cluster has none. "
            "Default: the configuration and the files that it names."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="JOB_ID of the job.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--detach", help="Show the log until the job has ended.")
    ] = False,
) -> None:
    """Run a comparison as a job of a Ray cluster."""
    from sase_ray.cluster import job_client
    from sase_ray.commands.submit import submit as start

    console = make_console()
    job_id = start(config, assignments or (), address=address, working_dir=working_dir, job_id=name)
    say(console, f"submitted {job_id}")
    at = f" --address {job_client.without_password(address)}" if address else ""
    ways = ", ".join(f"`ray job {way} {job_id}{at}`" for way in ("status", "logs -f", "stop"))
    if not follow:
        say(console, ways)
        return
    try:
        job = job_client.follow(job_client.connect(address), job_id, _write)
    except KeyboardInterrupt:
        say(make_console(stderr=True), f"the job continues: {ways}")
        raise typer.Exit(1) from None
    # Ray appends the end of the log, which is printed already.
    message = " ".join((job.message or "").partition(", last available logs")[0].split())
    say(console, f"\n{job_id}: {job.status.value}: {message}")
    if job.status.value != "SUCCEEDED":
        raise typer.Exit(1)


def _write(text: str) -> None:
    typer.echo(text, nl=False)
