"""The plain network's size and places of attention."""

from __future__ import annotations

from torch import nn

from search_spaces.backbones import build_backbone


def test_parameters_are_those_of_its_layers() -> None:
    network = build_backbone("plain_cnn", num_classes=5, in_channels=2, width=6)
    convolutions = 9 * 6 * (2 + 6 + 6)
    expected = convolutions + 3 * 2 * 6 + (6 + 1) * 5
    assert sum(p.numel() for p in network.parameters()) == expected


def test_every_convolution_has_attention() -> None:
    class Own(nn.Identity):
        pass

    network = build_backbone("plain_cnn", num_classes=2, attention=lambda *given: Own())
    assert sum(isinstance(module, Own) for module in network.modules()) == 3
