"""The base class of the bundled operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class OperationModule(nn.Module):
    """Base class of the bundled operations, with the constructor that `register_op` requires.

    Args:
        channels: Number of channels C of the feature map.
        size: Map size (H, W) that the module is built for.
        affine: Whether batch norms have affine parameters.
        device: Device of the parameters.
        dtype: Dtype of the parameters.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        *,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.build(channels, size, affine, device=device, dtype=dtype)

    def build(self, channels: int, size: tuple[int, int], affine: bool, **factory: Any) -> None:
        """Make the parameters, with the device and dtype in `factory`; none by default."""
