"""Hand-designed attention modules, the baselines of every comparison. Loads without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search_spaces.catalogue import Catalogue
from search_spaces.declarations import Decorated

if TYPE_CHECKING:
    from torch import nn

    from search_spaces.backbones.attention import AttentionFactory


@dataclass(frozen=True)
class Baseline:
    """A catalogue row. `module` makes the module for a number of channels; None for no module."""

    name: str
    module: Callable[[int], nn.Module | None]
    summary: str
    source: str


BASELINES: Catalogue[Baseline] = Catalogue("baseline", __name__, Decorated("register_baseline"))

Maker = Callable[[int], "nn.Module | None"]


def register_baseline(name: str, *, summary: str, source: str) -> Callable[[Maker], Maker]:
    """Enter a function from a number of channels to a module, or to None for the plain host.

    Raises:
        UserError: The name is taken.
    """

    def enter(module: Maker) -> Maker:
        BASELINES.enter(name, Baseline(name, module, summary, source), module)
        return module

    return enter


@register_baseline("none", summary="the plain host", source="")
def _none(channels: int) -> None:
    return None


# timm is imported by whoever builds one of its modules: it takes seconds.
@register_baseline(
    "se",
    summary="squeeze and excitation, reduction 16 (at least 8 hidden channels, as in timm)",
    source="Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, arXiv:1709.01507",
)
def _se(channels: int) -> nn.Module:
    from timm.layers import SEModule

    return SEModule(channels)


@register_baseline(
    "eca",
    summary="1-D convolution over the channels, its length by their number",
    source="Wang et al., ECA-Net: Efficient Channel Attention, CVPR 2020, arXiv:1910.03151",
)
def _eca(channels: int) -> nn.Module:
    from timm.layers import EcaModule

    return EcaModule(channels)


@register_baseline(
    "cbam",
    summary="channel attention (reduction 16), then spatial attention (7x7)",
    source="Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018, arXiv:1807.06521",
)
def _cbam(channels: int) -> nn.Module:
    from timm.layers.cbam import CbamModule

    return CbamModule(channels)


def baselines() -> list[Baseline]:
    """Return the catalogue, plain host first."""
    return BASELINES.entries()


def baseline_attention(name: str) -> AttentionFactory:
    """Return the factory of a hand-designed module; it has no use for size and stage.

    Raises:
        UserError: no such module.
    """
    module = BASELINES.find(name).module

    def factory(channels: int, size: tuple[int, int], stage: int) -> nn.Module | None:
        return module(channels)

    return factory
