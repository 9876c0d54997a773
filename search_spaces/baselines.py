"""Hand-designed attention modules, the baselines of every comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from search_spaces.backbones.registry import AttentionFactory
from search_spaces.errors import unknown_name


@dataclass(frozen=True)
class Baseline:
    """A catalogue row. `module` makes the module for a number of channels; None for no module."""

    name: str
    module: Callable[[int], nn.Module] | None
    summary: str
    source: str


# timm is imported by whoever builds one of its modules: it takes seconds.
def _se(channels: int) -> nn.Module:
    from timm.layers import SEModule

    return SEModule(channels)


def _eca(channels: int) -> nn.Module:
    from timm.layers import EcaModule

    return EcaModule(channels)


def _cbam(channels: int) -> nn.Module:
    from timm.layers.cbam import CbamModule

    return CbamModule(channels)


_CATALOGUE = {
    row.name: row
    for row in (
        Baseline("none", None, "the plain host", ""),
        Baseline(
            "se",
            _se,
            "squeeze and excitation, reduction 16 (at least 8 hidden channels, as in timm)",
            "Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, arXiv:1709.01507",
        ),
        Baseline(
            "eca",
            _eca,
            "1-D convolution over the channels, its length by their number",
            "Wang et al., ECA-Net: Efficient Channel Attention, CVPR 2020, arXiv:1910.03151",
        ),
        Baseline(
            "cbam",
            _cbam,
            "channel attention (reduction 16), then spatial attention (7x7)",
            "Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018, arXiv:1807.06521",
        ),
    )
}


def baselines() -> list[Baseline]:
    """Return the catalogue, plain host first."""
    return list(_CATALOGUE.values())


def baseline_attention(name: str) -> AttentionFactory:
    """Return the factory of a hand-designed module; it has no use for size and stage.

    Raises:
        UserError: no such module.
    """
    if name not in _CATALOGUE:
        raise unknown_name("baseline", name, _CATALOGUE)
    module = _CATALOGUE[name].module

    def factory(channels: int, size: tuple[int, int], stage: int) -> nn.Module | None:
        return None if module is None else module(channels)

    return factory
