"""A plain network of three convolutions, without residual connections.

Simonyan and Zisserman, ICLR 2015, https://arxiv.org/abs/1409.1556 (3x3 convolutions only).
"""

from __future__ import annotations

from torch import nn

from search_spaces.backbones.attention import AttentionFactory, make_attention
from search_spaces.backbones.registry import register_backbone


@register_backbone(
    "plain_cnn",
    stages=1,
    summary="three 3x3 convolutions, each with attention; option width (8)",
    source="Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556",
)
def build(
    num_classes: int,
    in_channels: int,
    input_size: tuple[int, int],
    attention: AttentionFactory,
    width: int = 8,
) -> nn.Module:
    """Build the network, with attention after each block's normalisation."""
    layers: list[nn.Module] = []
    places = []
    for channels in (in_channels, width, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        places.append(len(layers))
        layers += [nn.Identity(), nn.ReLU()]
    network = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)
    )
    for place in places:
        network[place] = make_attention(attention, width, input_size, 0)
    return network
