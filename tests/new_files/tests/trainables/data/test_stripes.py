"""Stripes: classes of equal size, which the images' symmetry shows."""

from __future__ import annotations

import torch

from trainables.data import load_dataset


def test_images_are_constant_along_the_stripes() -> None:
    data = load_dataset("stripes", count=400)
    assert data.images.shape == (400, 1, 8, 8)
    assert torch.bincount(data.labels).tolist() == [100] * 4
    mean = data.images.float().mean(1)
    along = mean.var(2).mean((1,)), mean.var(1).mean((1,))
    assert (along[0] < along[1])[data.labels == 0].float().mean() > 0.95
    assert (along[1] < along[0])[data.labels == 1].float().mean() > 0.95
