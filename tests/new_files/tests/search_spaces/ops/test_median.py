"""The median against numpy, in float64."""

from __future__ import annotations

import numpy as np
import torch

from search_spaces.ops import build_op


def test_median_is_that_of_numpy() -> None:
    x = torch.randn(3, 4, 5, 7, dtype=torch.float64)
    expected = np.median(x.numpy().reshape(3, 4, -1), axis=2)  # of 35 values, an odd number
    median = build_op("channel_squeeze", "median", 4, (5, 7))
    np.testing.assert_array_equal(median(x)[:, :, 0, 0].numpy(), expected)
