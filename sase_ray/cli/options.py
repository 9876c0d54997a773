"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sase_ray.config import Config


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


Cpus = Annotated[float | None, typer.Option("--cpus-per-trial")]


Gpus = Annotated[float | None, typer.Option("--gpus-per-trial", help="A fraction shares a GPU.")]


def names_of(text: str | None) -> list[str] | None:
    """Split names that are joined by commas; None stays None."""
    if text is None:
        return None
    return [name.strip() for name in text.split(",") if name.strip()]


def load_settings(config: Path | None, assignments: list[str] | None, **options: Any) -> Config:
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
