"""Parameters with the shape of a map, for maps of any size."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.ops.kernels.mode import is_fused


def resize_grid(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (h, w) to `size` = (H, W), bilinear between pixel centres; unchanged if equal."""
    # The shortcut would fix the input size of a traced graph; resizing gives the same values.
    if is_fused(grid) and tuple(grid.shape) == tuple(size):
        return grid
    return F.interpolate(grid[None, None], size, mode="bilinear", align_corners=False)[0, 0]


class Affine(nn.Module):
    """Affine map a * x + b, with a = 1 and b = 0 at the start.

    Args:
        shape: Shape of a and of b, which broadcast against x.
        device: Device of the parameters.
        dtype: Dtype of the parameters.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(shape, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift x; the shape stays the same."""
        return self.weight * x + self.bias


class GridAffine(Affine):
    """Affine map a * x + b, with a and b for each position of a map.

    They are stored at the (h, w) that the module is built for, and resized to the input map.
    """

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """Take a and b of a module that was built for another map size, resized to this one."""
        for name, own in self.named_parameters():
            grid = state_dict.get(prefix + name)
            if isinstance(grid, Tensor) and grid.dim() == 2 and grid.shape != own.shape:
                height, width = own.shape
                state_dict[prefix + name] = resize_grid(grid, (height, width))
        super()._load_from_state_dict(state_dict, prefix, *others)

    def at(self, size: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return a and b, each of shape `size`."""
        return resize_grid(self.weight.to(dtype), size), resize_grid(self.bias.to(dtype), size)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift (..., H, W); the shape stays the same."""
        weight, bias = self.at((x.shape[-2], x.shape[-1]), x.dtype)
        return weight * x + bias
