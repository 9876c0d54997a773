"""Commands that list the catalogues and describe a genotype."""

from __future__ import annotations

from typing import Annotated

import typer

from sase_ray.console import print_catalogue


def show(
    genotype: Annotated[str, typer.Argument(help="Six operations joined by '-'.")],
    space: Annotated[str, typer.Option(help="Space to check it against.")] = "sase",
    backbone: Annotated[str, typer.Option(help="Host to count parameters in.")] = "resnet20",
    channels: Annotated[int, typer.Option(help="Channels of a single block.", min=1)] = 64,
    image_size: Annotated[int, typer.Option(help="Height and width of the images.", min=1)] = 32,
) -> None:
    """Describe a genotype: its edges, a diagram, parameters and multiply-accumulates."""
    from sase_ray.cli.show_genotype import print_genotype
    from search_spaces.ops import load_operations
    from search_spaces.space import SearchSpace

    loaded = SearchSpace.load(space)
    load_operations(loaded)
    print_genotype(loaded.parse(genotype), backbone, channels, image_size)


def strategies() -> None:
    """List the search strategies, and the scores by which training-free ones rank."""
    from sase_ray.strategies.registry import STRATEGIES
    from trainables.scores.registry import SCORES

    rows = sorted(STRATEGIES.table("name", "family", "summary", "source"))
    print_catalogue(("strategy", "family", "what it does", "source"), rows)
    print_catalogue(("score", "what it is", "source"), SCORES.table("name", "summary", "source"))


def spaces() -> None:
    """List the bundled search spaces."""
    from search_spaces.space import SearchSpace, space_names

    loaded = [SearchSpace.load(name) for name in space_names()]
    rows = [
        (s.name, f"{s.size:,}", "network" if s.stages == 1 else "stage", s.source) for s in loaded
    ]
    print_catalogue(("space", "genotypes", "one for each", "source"), rows)


def datasets() -> None:
    """List the data sets, and the tasks to train a network for."""
    from sase_ray.protocols import presets
    from trainables.data.registry import DATASETS
    from trainables.tasks.registry import TASKS

    rows = [
        (name, summary, "yes" if name in presets() else "", source)
        for name, summary, source in DATASETS.table("name", "summary", "source")
    ]
    print_catalogue(("data set", "what it is", "preset", "source"), rows)
    print_catalogue(("task", "what it is"), TASKS.table("name", "summary"))


def backbones() -> None:
    """List the host networks, and the hand-designed modules to compare with."""
    from search_spaces.backbones.registry import BACKBONES
    from search_spaces.baselines import BASELINES

    rows = [
        (name, str(stages), summary, source)
        for name, stages, summary, source in BACKBONES.table("name", "stages", "summary", "source")
    ]
    rows.append(("timm:NAME", "1", "any timm network that takes an attention layer", "timm"))
    print_catalogue(("backbone", "stages", "what it is", "source"), rows)
    print_catalogue(
        ("baseline", "what it does", "source"), BASELINES.table("name", "summary", "source")
    )
