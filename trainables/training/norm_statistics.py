"""Statistics of batch norms, estimated from training images before a network is evaluated.

A batch norm is evaluated with running statistics. These may belong to another network, or lag
behind the weights; then they are estimated again (Wu and Johnson, "Rethinking 'Batch' in
BatchNorm", 2021, arXiv:2105.07576, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from search_spaces.ops.kernels.mode import fused
from trainables.data import Batches, FinalData, SearchData
from trainables.training.cost import samples_of_forward
from trainables.training.loop import Batch, autocast
from trainables.training.protocol import TrainingProtocol

STATISTICS_IMAGES = 2_048
"""Largest number of training images from which statistics are estimated."""


def statistics_batches(
    data: SearchData | FinalData, protocol: TrainingProtocol, device: torch.device
) -> Batches:
    """Return batches of the first training images, in stored order, without augmentation."""
    return Batches(
        data.train,
        min(512, protocol.batch_size * 4),
        data.normalisation,
        indices=torch.arange(min(STATISTICS_IMAGES, len(data.train))),
        channels_last=protocol.channels_last and device.type == "cuda",
    )


def samples_of_statistics(data: SearchData) -> int:
    """Return what an estimate from `statistics_batches` costs, in training samples."""
    return samples_of_forward(min(STATISTICS_IMAGES, len(data.train)))


def estimate_statistics(
    model: nn.Module, batches: Iterable[Batch], protocol: TrainingProtocol, device: torch.device
) -> None:
    """Replace the running statistics of all batch norms by their means over the batches.

    The generators that dropout draws from are left as they were.
    """
    own = [device] if device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(own), fused(), autocast(protocol, device):
        update_bn(batches, model)
