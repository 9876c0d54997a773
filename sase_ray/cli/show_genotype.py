"""The description of a genotype that `sase-ray show` prints."""

from __future__ import annotations

from collections.abc import Iterator

from sase_ray.console import console_for_tables, print_catalogue, say
from sase_ray.figures.block_text import draw
from search_spaces.block import SASE
from search_spaces.costs import Cost, count_cost
from search_spaces.genotype import EDGE_KINDS, Genotype
from search_spaces.network import NetworkSpec
from search_spaces.ops import operations


def describe_edges(block: Genotype) -> Iterator[tuple[str, str, str, str]]:
    """Yield edge, operation, what the operation does and its source, for a one-block genotype."""
    catalogue = {(op.kind, op.name): op for op in operations()}
    for edge, name in block.edges().items():
        op = catalogue[EDGE_KINDS[edge], name]
        yield edge, name, op.summary, op.source


def block_cost(block: Genotype, channels: int, size: tuple[int, int]) -> Cost:
    """Count one block on a map of `channels` and `size`."""
    return count_cost(SASE(channels, block, size=size), (channels, *size))


def host_costs(genotype: Genotype, backbone: str, image_size: int) -> tuple[Cost, Cost]:
    """Count a host for ten classes of colour images, without and with the genotype's blocks."""
    spec = NetworkSpec(backbone, 10, 3, (image_size, image_size))
    shape = (3, image_size, image_size)
    return count_cost(spec.build(), shape), count_cost(spec.with_genotype(genotype), shape)


def print_genotype(genotype: Genotype, backbone: str, channels: int, image_size: int) -> None:
    """Print a genotype's edges, drawing and costs.

    Args:
        genotype: Complete genotype.
        backbone: Name of the host to count in.
        channels: Number of channels of a single block.
        image_size: Height and width of the host's images.
    """
    plain, attended = host_costs(genotype, backbone, image_size)
    console = console_for_tables()
    for stage in range(genotype.stages):
        block = genotype.stage(stage)
        title = f"{block}" if genotype.stages == 1 else f"stage {stage}: {block}"
        print_catalogue(
            ("edge", "operation", "what it does", "source"), describe_edges(block), title
        )
        say(console, draw(block))
        cost = block_cost(block, channels, (14, 14))
        say(
            console,
            f"one block, {channels} channels, 14x14: {cost.parameters:,} parameters, "
            f"{cost.macs:,} multiply-accumulates",
        )
    say(
        console,
        f"in {backbone}, {image_size}x{image_size}: {attended.parameters:,} parameters "
        f"({attended.parameters - plain.parameters:+,}), {attended.macs:,} multiply-accumulates "
        f"({attended.macs - plain.macs:+,})",
    )
