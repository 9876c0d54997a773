"""The base class of the bundled operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class OperationModule(nn.Module):
    """Base class of the bundled operations: the constructor that `register_op` asks for.

    Args:
        channels: C of the feature map.
        size: (H, W) that the module is built for.
        affine: Whether batch norms have parameters of their own.
        device: Of the parameters.
        dtype: Of the parameters.
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
        """Make the parameters, on the device and in the dtype of `factory`; none by default."""
