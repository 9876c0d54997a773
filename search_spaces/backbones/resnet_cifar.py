"""CIFAR-style ResNets of depth 6n + 2, for small images.

Paper: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2,
https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.backbones.attention import AttentionFactory, make_attention
from search_spaces.backbones.registry import register_backbone
from search_spaces.errors import UserError


class CifarBlock(nn.Module):
    """Two 3x3 convolutions with a parameter-free shortcut (option A of the paper).

    Shape: (B, in_channels, H, W) to (B, channels, ceil(H / stride), ceil(W / stride)). Where the
    channels grow, the shortcut subsamples and fills the new channels with zeros.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.attention: nn.Module = nn.Identity()
        self.stride = stride
        self.new_channels = channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Add the attended residual branch to the shortcut."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.attention(self.bn2(self.conv2(out)))
        if self.stride > 1 or self.new_channels:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """A ResNet of three stages of `blocks` blocks with width, 2 width and 4 width channels.

    Shape: images (B, in_channels, H, W) to logits (B, num_classes). The stages' maps have the
    size of the image divided by the stride of the stem, then half and a quarter of it, rounded up.
    """

    def __init__(
        self, blocks: int, width: int, num_classes: int, in_channels: int, stem_stride: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(blocks, width, width, stride=1)
        self.layer2 = _stage(blocks, width, 2 * width, stride=2)
        self.layer3 = _stage(blocks, 2 * width, 4 * width, stride=2)
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Classify the images."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def _stage(blocks: int, in_channels: int, channels: int, stride: int) -> nn.Sequential:
    first = CifarBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(CifarBlock(channels, channels, 1) for _ in range(blocks - 1)))


@register_backbone(
    "resnet{depth}",
    stages=3,
    summary="CIFAR-style ResNet-{depth}, 3 stages; options width (16), stem_stride (1)",
    source="He et al., CVPR 2016, section 4.2, arXiv:1512.03385",
    variants=[
        {"depth": 8},
        {"depth": 14},
        {"depth": 20},
        {"depth": 32},
        {"depth": 44},
        {"depth": 56},
    ],
)
def build(
    num_classes: int,
    in_channels: int,
    input_size: tuple[int, int],
    attention: AttentionFactory,
    depth: int,
    width: int = 16,
    stem_stride: int = 1,
) -> CifarResNet:
    """Build the ResNet of a depth, with attention after each block's last normalisation."""
    for name, value in (("width", width), ("stem_stride", stem_stride)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"option {name} of resnet{depth} is a positive integer, not {value!r}")
    network = CifarResNet((depth - 2) // 6, width, num_classes, in_channels, stem_stride)
    height, wide = (-(-side // stem_stride) for side in input_size)
    for stage, layer in enumerate((network.layer1, network.layer2, network.layer3)):
        for block in layer:
            block.attention = make_attention(attention, width * 2**stage, (height, wide), stage)
        height, wide = -(-height // 2), -(-wide // 2)
    return network
