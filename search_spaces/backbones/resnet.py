"""ResNets of torchvision, with attention after the last normalisation of each residual branch.

Paper: He et al., Deep Residual Learning for Image Recognition, CVPR 2016,
https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from search_spaces.backbones.attention import AttentionFactory, make_attention
from search_spaces.backbones.registry import register_backbone
from search_spaces.backbones.weight_files import state_dict_in
from search_spaces.errors import UserError
from search_spaces.user_paths import user_path


class AttentionBasicBlock(BasicBlock):
    """The `BasicBlock` of torchvision with `attention` between `bn2` and the addition."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.attention: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Add the attended residual branch to the shortcut."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.attention(self.bn2(self.conv2(out)))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class AttentionBottleneck(Bottleneck):
    """The `Bottleneck` of torchvision with `attention` between `bn3` and the addition."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.attention: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Add the attended residual branch to the shortcut."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.attention(self.bn3(self.conv3(out)))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


def load_weights(
    network: nn.Module,
    weights: str | Path,
    *,
    named: Mapping[str, WeightsEnum],
    replaceable: tuple[str, ...],
) -> None:
    """Load weights into a network whose attention modules are called `attention`.

    Weights of a plain host leave the attention unchanged; those of a network with attention must
    fit the attention too. A stem or head of another shape (other images, other classes) keeps its
    own weights.

    Args:
        network: Network that is changed in place.
        weights: Key of `named`, or path to a file with a state dict.
        named: Weights that torchvision has for this network.
        replaceable: Prefixes of the keys of stem and head.

    Raises:
        UserError: There is no such name or file, or the file is not a state dict of this network.
    """
    state = _read_state_dict(weights, named)
    own = network.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    host_only = not any(".attention." in key for key in state)
    wanted = {key for key in own if not (host_only and ".attention." in key)}
    wrong = [
        key
        for key in sorted((wanted | state.keys()) - fitting.keys())
        # Files written before PyTorch 0.4.1 do not have this counter.
        if not key.startswith(replaceable) and not key.endswith("num_batches_tracked")
    ]
    if wrong:
        raise UserError(
            f"weights {str(weights)!r} are of another network: {wrong[0]!r} "
            f"and {len(wrong) - 1} other entries are missing, surplus or of another shape"
        )
    network.load_state_dict({**own, **fitting})


def _read_state_dict(weights: str | Path, named: Mapping[str, WeightsEnum]) -> Mapping[str, Tensor]:
    if str(weights) in named:
        try:
            return named[str(weights)].get_state_dict(progress=False, check_hash=True)
        except OSError as error:
            url = named[str(weights)].url
            raise UserError(f"cannot get {url} ({error}): download it, give its path") from None
    path = user_path(weights)
    if not os.path.isfile(path):
        names = f", nor one of {', '.join(named)}" if named else ""
        raise UserError(f"weights {str(weights)!r} are no file{names}")
    try:
        state = state_dict_in(torch.load(path, map_location="cpu", weights_only=True))
    except (UnpicklingError, RuntimeError, EOFError):
        state = None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} is no file of a state dict, as torch.save(net.state_dict()) makes")
    return state


@register_backbone(
    "resnet{depth}",
    stages=4,
    summary="torchvision ResNet-{depth}, 4 stages; option weights (name or file)",
    source="He et al., CVPR 2016, arXiv:1512.03385",
    variants=[
        {"depth": 18, "layers": [2, 2, 2, 2]},
        {"depth": 34, "layers": [3, 4, 6, 3]},
        {"depth": 50, "layers": [3, 4, 6, 3]},
        {"depth": 101, "layers": [3, 4, 23, 3]},
    ],
)
def build(
    num_classes: int,
    in_channels: int,
    input_size: tuple[int, int],
    attention: AttentionFactory,
    depth: int,
    layers: list[int],
    weights: str | Path | None = None,
) -> ResNet:
    """Build the ResNet of a depth: bottlenecks from 50 on (table 1 of the paper)."""
    block = AttentionBottleneck if depth >= 50 else AttentionBasicBlock
    network = ResNet(block, layers, num_classes)
    if in_channels != 3:
        network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    _place_attention(network, input_size, attention)
    if weights is not None:
        named = get_model_weights(f"resnet{depth}").__members__
        load_weights(network, weights, named=named, replaceable=("conv1.", "fc."))
    return network


def _place_attention(
    network: ResNet, input_size: tuple[int, int], attention: AttentionFactory
) -> None:
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    for stage, layer in enumerate(stages):
        # Every convolution or pooling with stride 2 rounds up.
        height, width = (-(-side // (4 * 2**stage)) for side in input_size)
        for block in layer:
            channels = block.expansion * block.conv2.out_channels
            block.attention = make_attention(attention, channels, (height, width), stage)
