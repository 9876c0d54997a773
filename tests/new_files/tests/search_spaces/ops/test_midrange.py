"""The midrange against numpy, in float64."""

from __future__ import annotations

import numpy as np
import torch

from search_spaces.ops import build_op


def test_midrange_is_half_way_between_the_extremes() -> None:
    x = torch.randn(3, 4, 5, 7, dtype=torch.float64)
    ordered = np.sort(x.numpy().reshape(3, 4, -1), axis=2)
    midrange = build_op("channel_squeeze", "midrange", 4, (5, 7))
    np.testing.assert_allclose(
        midrange(x)[:, :, 0, 0].numpy(), (ordered[..., 0] + ordered[..., -1]) / 2, rtol=1e-14
    )
