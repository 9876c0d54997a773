"""The options that several commands share, declared once and given to a command by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from sase_ray.config import Config

Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One value, e.g. proxy.epochs=5; repeatable."),
]

_MEANINGS = {
    "dataset": "See `sase-ray datasets`.",
    "space": "See `sase-ray spaces`; or a YAML file.",
    "backbone": "See `sase-ray backbones`.",
    "data_root": "Folder of the data set.",
    "budget": "Training samples per search, e.g. 1e6.",
    "warm_start_from": "Folder of a run; a strategy X+Y is X that begins with what Y ranked best "
    "there.",
    "agreement": "'table' or a table's path: report how well one-shot searches rank its genotypes.",
    "results": "Folder in which the run's folder is made.",
    "run": "Name of the run's folder.",
    "storage": "Folder or URI (s3://...) that all nodes reach, for checkpoints.",
    "address": "Ray cluster to join; 'auto' for a running one.",
}
OPTIONS: Mapping[str, Any] = {
    "config": Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file with the keys of config.yaml.")
    ],
    "assignments": Assignments,
    **{name: Annotated[str | None, typer.Option(help=text)] for name, text in _MEANINGS.items()},
    "cpus_per_trial": Annotated[float | None, typer.Option(help="CPU cores of a trial.")],
    "gpus_per_trial": Annotated[float | None, typer.Option(help="GPUs, or a share of one.")],
}
"""Annotations of the shared options by the name of their parameter; all default to None."""

PROBLEM = ("config", "assignments", "dataset", "space", "backbone", "data_root")
SEARCH = ("budget", "warm_start_from", "agreement")
FOLDER = ("results", "run", "storage")
CLUSTER = ("address", "cpus_per_trial", "gpus_per_trial")

_SECTIONS = {
    "backbone": ("backbone", "name"),
    "data_root": ("data", "root"),
    **{name: ("resources", name) for name in CLUSTER},
}
"""Section and key in the configuration of the options that are not top-level keys."""


def takes(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the shared options of these names.

    The command receives them as its keyword argument `given`, a dictionary of all of them.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def command(**arguments: Any) -> None:
            given = {name: arguments.pop(name) for name in names}
            function(**arguments, given=given)

        hints = get_type_hints(function, include_extras=True)
        own = [p for p in inspect.signature(function).parameters.values() if p.name != "given"]
        only = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            *(inspect.Parameter(n, only, default=None, annotation=OPTIONS[n]) for n in names),
            *(p.replace(kind=only, annotation=hints[p.name]) for p in own),
        ]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def flag_of(name: str) -> str:
    """Return the option of a parameter as it is typed."""
    return "--set" if name == "assignments" else f"--{name.replace('_', '-')}"


def names_of(text: str | None) -> list[str] | None:
    """Split names that are joined by commas; None stays None."""
    if text is None:
        return None
    return [name.strip() for name in text.split(",") if name.strip()]


def load_settings(
    config: Path | None = None, assignments: list[str] | None = None, **options: Any
) -> Config:
    """Build the configuration of a command from its options; those not given are None."""
    from sase_ray.config import load_config

    given: dict[str, Any] = {}
    for option, value in options.items():
        if value is not None and option in _SECTIONS:
            section, key = _SECTIONS[option]
            given.setdefault(section, {})[key] = value
        elif value is not None:
            given[option] = value
    return load_config(config, given, assignments or ())
