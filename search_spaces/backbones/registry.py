"""The catalogue of backbones and the decorator that adds to it. Loads without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from search_spaces.catalogue import Catalogue
from search_spaces.declarations import Decorated, fill_in

TIMM_PREFIX = "timm:"
OWN_PREFIX = "file:"

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Backbone:
    """One entry of the catalogue of backbones.

    Attributes:
        name: Name on the command line.
        builder: Function that builds the network, see `register_backbone`.
        stages: Number of stages that a per-stage genotype must have.
        summary: One line for the catalogue.
        source: Paper that describes it.
        variant: Arguments of the builder that make this member of its family.
    """

    name: str
    builder: Callable[..., Any]
    stages: int
    summary: str
    source: str
    variant: Mapping[str, Any] = field(default_factory=dict)


BACKBONES: Catalogue[Backbone] = Catalogue(
    "backbone",
    "search_spaces.backbones",
    Decorated("register_backbone"),
    also=(f"{TIMM_PREFIX}NAME", f"{OWN_PREFIX}PATH"),
)


def register_backbone(
    name: str,
    *,
    stages: int,
    summary: str,
    source: str,
    variants: Sequence[Mapping[str, Any]] = ({},),
) -> Callable[[T], T]:
    """Add a builder ``(num_classes, in_channels, input_size, attention, **options)``.

    Args:
        name: Name on the command line.
        stages: Number of stages that a per-stage genotype must have.
        summary: One line for the catalogue.
        source: Paper that describes it.
        variants: Members of a family, one mapping per member: further arguments of the builder.
            `name`, `summary` and `source` are templates that they fill in (``"resnet{depth}"``).

    Raises:
        UserError: The name is already taken.
    """

    def enter(builder: T) -> T:
        for variant in variants:
            texts = [fill_in(text, variant) for text in (name, summary, source)]
            row = Backbone(texts[0], builder, stages, texts[1], texts[2], variant)
            BACKBONES.enter(row.name, row, builder)
        return builder

    return enter
