"""Supernet blocks whose operations see only a part of the channels; the others bypass them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers.cbam import ChannelAttn
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.block import DEFAULT_SIZE, SASE
from search_spaces.errors import UserError
from search_spaces.genotype import Genotype
from search_spaces.mixture import EdgeWeights, Mixture
from search_spaces.space import SearchSpace
from search_spaces.super_block import SuperSASE


class PartialSuperSASE(nn.Module):
    """The mixed block on the first 1/K of the channels, and a channel shuffle after it.

    Xu et al., "PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search",
    ICLR 2020. With K = 1 it is `SuperSASE`.

    Shape: (B, C, H, W) to the same.

    Args:
        channels: Number of channels C, divisible by K.
        space: Search space.
        size: Map size (H, W) that the block is built for.
        parts: Number of parts K.
        affine: Whether batch norms have affine parameters.

    Raises:
        UserError: The number of channels is not divisible by K.
    """

    def __init__(
        self,
        channels: int,
        space: SearchSpace,
        *,
        size: tuple[int, int] = DEFAULT_SIZE,
        parts: int = 4,
        affine: bool = False,
    ) -> None:
        super().__init__()
        if channels % parts:
            raise UserError(f"a block of {channels} channels cannot be cut into {parts} parts")
        self.parts = parts
        self.shown = channels // parts
        self.mixed = SuperSASE(self.shown, space, size=size, affine=affine)

    def forward(self, x: Tensor, mixture: Mixture | Sequence[EdgeWeights]) -> Tensor:
        """Attend to the first 1/K of the channels of `x`."""
        shown, passing = x.split([self.shown, x.shape[1] - self.shown], dim=1)
        joined = torch.cat([self.mixed(shown, mixture), passing], dim=1)
        return F.channel_shuffle(joined, self.parts) if self.parts > 1 else joined

    def extract(self, genotype: Genotype, *, inherit: bool = True) -> SASE:
        """Raise an error: these weights belong to narrower operations.

        Raises:
            UserError: In every case.
        """
        raise UserError(
            f"this block has weights for {self.shown} of {self.shown * self.parts} channels: "
            f"extract the network with inherit=False"
        )


class AttentivePartialSuperSASE(PartialSuperSASE):
    """The mixed block on the 1/K of the channels that a channel attention ranks highest.

    Xue and Qin, "Partial Connection Based on Channel Attention for Differentiable Neural
    Architecture Search", IEEE Transactions on Industrial Informatics 2023 (ADARTS). The attention
    is CBAM's, of average and maximum (timm's). It weighs the chosen channels, through which it is
    trained; the others bypass the operations unchanged, and all channels keep their places.
    Channels are chosen for a whole batch, by the mean over its images; outside of training, by the
    running mean.
    """

    running_score: Tensor

    def __init__(
        self,
        channels: int,
        space: SearchSpace,
        *,
        size: tuple[int, int] = DEFAULT_SIZE,
        parts: int = 4,
        affine: bool = False,
        momentum: float = 0.1,
    ) -> None:
        super().__init__(channels, space, size=size, parts=parts, affine=affine)
        self.attention = ChannelAttn(channels)
        self.momentum = momentum
        self.register_buffer("running_score", torch.zeros(channels))

    def score(self, x: Tensor) -> Tensor:
        """Return the importance of each channel, (B, C, H, W) to (B, C, 1, 1), from 0 to 1."""
        attention = self.attention
        logits = [
            attention.fc2(attention.act(attention.fc1(summary)))
            for summary in (x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True))
        ]
        gate: Tensor = attention.gate(logits[0] + logits[1])
        return gate

    def forward(self, x: Tensor, mixture: Mixture | Sequence[EdgeWeights]) -> Tensor:
        """Attend to the most important channels of `x`."""
        score = self.score(x)
        importance = self.running_score
        if self.training:
            importance = score.detach().mean((0, 2, 3)).to(importance.dtype)
            with torch.no_grad():
                self.running_score.lerp_(importance, self.momentum)
        chosen = importance.topk(self.shown).indices.sort().values
        shown = (x * score).index_select(1, chosen)
        return x.index_copy(1, chosen, self.mixed(shown, mixture).to(x.dtype))
