"""Hand-designed attention modules, the baselines of every comparison. Loads without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from search_spaces.catalogue import Catalogue
from search_spaces.declarations import Decorated

if TYPE_CHECKING:
    from torch import nn

    from search_spaces.backbones.attention import AttentionFactory

Tunes = Literal["modules", "norms", "all"]
"""Parts trained in a frozen host: only the modules, also the host's batch norms, or all."""


@dataclass(frozen=True)
class Baseline:
    """One entry of the catalogue of baselines.

    `module` makes the module for a number of channels, or None for no module. A baseline that
    `tunes` more than the modules needs a trained host.
    """

    name: str
    module: Callable[[int], nn.Module | None]
    summary: str
    source: str
    tunes: Tunes = "modules"


BASELINES: Catalogue[Baseline] = Catalogue("baseline", __name__, Decorated("register_baseline"))

Maker = Callable[[int], "nn.Module | None"]


def register_baseline(
    name: str, *, summary: str, source: str, tunes: Tunes = "modules"
) -> Callable[[Maker], Maker]:
    """Add a function from a number of channels to a module, or to None for the plain host.

    Raises:
        UserError: The name is already taken.
    """

    def enter(module: Maker) -> Maker:
        BASELINES.enter(name, Baseline(name, module, summary, source, tunes), module)
        return module

    return enter


@register_baseline("none", summary="the plain host", source="")
def _none(channels: int) -> None:
    return None


# Each function imports timm only when it builds a module, since the import takes seconds.
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


@register_baseline(
    "gc",
    summary="global context: attention pooling, then a gate per channel",
    source="Cao et al., GCNet, ICCVW 2019, arXiv:1904.11492",
)
def _gc(channels: int) -> nn.Module:
    from timm.layers import GlobalContext

    return GlobalContext(channels)


@register_baseline(
    "ese",
    summary="effective squeeze and excitation: one fully connected layer, hard sigmoid",
    source="Lee and Park, CenterMask, CVPR 2020, arXiv:1911.06667",
)
def _ese(channels: int) -> nn.Module:
    from timm.layers import EffectiveSEModule

    return EffectiveSEModule(channels)


@register_baseline(
    "ge",
    summary="gather-excite without parameters (GE-theta-, global extent)",
    source="Hu et al., Gather-Excite, NeurIPS 2018, arXiv:1810.12348",
)
def _ge(channels: int) -> nn.Module:
    from timm.layers import GatherExcite

    # timm 1.0's forms with parameters (extra_params, use_mlp) raise a TypeError.
    return GatherExcite(channels, use_mlp=False)


@register_baseline(
    "bn",
    summary="scales and shifts of a frozen host's batch norms are tuned",
    source="Frankle et al., Training BatchNorm and Only BatchNorm, ICLR 2021, arXiv:2003.00152",
    tunes="norms",
)
def _bn(channels: int) -> None:
    return None


@register_baseline(
    "full", summary="the whole of a frozen host is tuned, as a ceiling", source="", tunes="all"
)
def _full(channels: int) -> None:
    return None


def baselines() -> list[Baseline]:
    """Return the catalogue, plain host first."""
    return BASELINES.entries()


def baseline_attention(name: str) -> AttentionFactory:
    """Return the factory of a hand-designed module; it ignores size and stage.

    Raises:
        UserError: There is no such module.
    """
    module = BASELINES.find(name).module

    def factory(channels: int, size: tuple[int, int], stage: int) -> nn.Module | None:
        return module(channels)

    return factory
