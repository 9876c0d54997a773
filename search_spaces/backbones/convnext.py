"""ConvNeXts of torchvision with attention in the residual branch, and a small one.

Paper: Liu et al., A ConvNet for the 2020s, CVPR 2022, https://arxiv.org/abs/2201.03545
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.models import get_model_weights, list_models
from torchvision.models.convnext import CNBlock, CNBlockConfig, ConvNeXt

from search_spaces.backbones.attention import AttentionFactory, make_attention
from search_spaces.backbones.registry import register_backbone
from search_spaces.backbones.resnet import load_weights
from search_spaces.errors import UserError


class AttentionCNBlock(CNBlock):
    """The `CNBlock` of torchvision with `attention` (B, C, H, W) before the layer scale."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.attention: nn.Module = nn.Identity()

    def forward(self, input: Tensor) -> Tensor:
        """Add the attended and scaled residual branch to the input."""
        result = self.layer_scale * self.attention(self.block(input))
        return input + self.stochastic_depth(result)


@register_backbone(
    "convnext_{size}",
    stages=4,
    summary="ConvNeXt of depths {depths} and widths {widths}; "
    "options patch (4: stride of the stem) and weights (name or file)",
    source="Liu et al., CVPR 2022, arXiv:2201.03545",
    variants=[
        {
            "size": "atto",
            "depths": (2, 2, 6, 2),
            "widths": (40, 80, 160, 320),
            "stochastic_depth": 0.0,
        },
        {
            "size": "tiny",
            "depths": (3, 3, 9, 3),
            "widths": (96, 192, 384, 768),
            "stochastic_depth": 0.1,
        },
        {
            "size": "small",
            "depths": (3, 3, 27, 3),
            "widths": (96, 192, 384, 768),
            "stochastic_depth": 0.4,
        },
        {
            "size": "base",
            "depths": (3, 3, 27, 3),
            "widths": (128, 256, 512, 1024),
            "stochastic_depth": 0.5,
        },
    ],
)
def build(
    num_classes: int,
    in_channels: int,
    input_size: tuple[int, int],
    attention: AttentionFactory,
    size: str,
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    stochastic_depth: float,
    patch: int = 4,
    weights: str | Path | None = None,
) -> ConvNeXt:
    """Build a ConvNeXt with attention in every residual branch, before the layer scale."""
    name = f"convnext_{size}"
    sizes = _stage_sizes(name, input_size, patch)
    network = ConvNeXt(
        [
            CNBlockConfig(width, following, depth)
            for width, following, depth in zip(widths, (*widths[1:], None), depths, strict=True)
        ],
        stochastic_depth_prob=stochastic_depth,
        num_classes=num_classes,
        block=AttentionCNBlock,
    )
    if (in_channels, patch) != (3, 4):
        network.features[0][0] = _stem(in_channels, widths[0], patch)
    for stage, layer in enumerate(network.features[1::2]):
        for block in layer:
            block.attention = make_attention(attention, widths[stage], sizes[stage], stage)
    if weights is not None:
        named = get_model_weights(name).__members__ if name in list_models() else {}
        replaceable = ("features.0.0.", "classifier.2.")
        load_weights(network, weights, named=named, replaceable=replaceable)
    return network


def _stage_sizes(name: str, input_size: tuple[int, int], patch: int) -> list[tuple[int, int]]:
    """Return each stage's map size; unpadded convolutions of stem and downsampling round down."""
    if not isinstance(patch, int) or patch < 1:
        raise UserError(f"option patch of {name} is a positive integer, not {patch!r}")
    if min(input_size) < 8 * patch:
        raise UserError(
            f"images of {input_size[0]}x{input_size[1]} are too small for {name} with patch "
            f"{patch}: it takes {8 * patch}x{8 * patch} and larger, or give a smaller patch"
        )
    height, width = input_size
    return [(height // (patch * 2**stage), width // (patch * 2**stage)) for stage in range(4)]


def _stem(in_channels: int, channels: int, patch: int) -> nn.Conv2d:
    """Build the layer that cuts the image into patches, initialised as in torchvision."""
    stem = nn.Conv2d(in_channels, channels, patch, stride=patch)
    nn.init.trunc_normal_(stem.weight, std=0.02)
    assert stem.bias is not None
    nn.init.zeros_(stem.bias)
    return stem
