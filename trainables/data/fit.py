"""Fitting of images to a network, or to another data set: size and number of channels."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from search_spaces.errors import UserError
from trainables.data.dataset import ImageData, LabelledImages

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey image (ITU-R BT.601)."""

_CHUNK = 2**24


def fit_images(images: Tensor, channels: int | None, size: int | None) -> Tensor:
    """Return uint8 images (N, C, H, W) with another number of channels, and another size.

    Args:
        images: Images, uint8 (N, C, H, W).
        channels: 1 or 3: grey images are copied to three channels, colours are averaged by `LUMA`;
            None keeps them.
        size: Side of the squares that the images are resized to in pixels, bilinearly and with
            antialiasing; None keeps the size.

    Raises:
        UserError: The images have another number of channels than 1 or 3, and are to change it.
    """
    have = images.shape[1]
    if channels not in (None, have) and {channels, have} != {1, 3}:
        raise UserError(f"images of {have} channel(s) cannot be turned into {channels}")
    parts = []
    for part in images.split(max(1, _CHUNK // max(1, images[:1].numel()))):
        levels = part
        if (channels, have) == (1, 3):
            levels = (part * torch.tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        if size is not None and part.shape[2:] != (size, size):
            levels = F.interpolate(levels.float(), (size, size), mode="bilinear", antialias=True)
        if levels.is_floating_point():
            levels = levels.round().clamp(0, 255).to(torch.uint8)
        parts.append(levels)
    fitted = torch.cat(parts)
    return fitted.repeat(1, 3, 1, 1) if (channels, have) == (3, 1) else fitted


def fit_data(data: ImageData, channels: int | None, size: int | None) -> ImageData:
    """Return the data set with all its images fitted, see `fit_images`.

    Raises:
        UserError: As in `fit_images`.
    """
    if channels is None and size is None:
        return data
    test = data.test and LabelledImages(
        fit_images(data.test.images, channels, size), data.test.labels
    )
    return replace(data, images=fit_images(data.images, channels, size), test=test)
