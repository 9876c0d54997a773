"""Plausible truths behind a ground-truth table, and regret in them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sase_ray.tabular_benchmark.noise_model import Array, NoiseModel
from search_spaces.errors import UserError
from trainables.metrics import find_metric

DRAWS = 1000
"""Number of drawn truths over which an expected regret is averaged."""


class Worlds:
    """True scores of all genotypes, drawn once per seed so that they agree with a table.

    Args:
        model: Model of the true scores.
        test_columns: Index of the test score that belongs to a validation metric.
        lost: Mask of the genotypes whose training diverged.
    """

    def __init__(
        self, model: NoiseModel, test_columns: Mapping[str, int], lost: NDArray[np.bool_]
    ) -> None:
        self._model = model
        self._test_columns = dict(test_columns)
        self._lost = lost
        self._latest: tuple[int, Array] | None = None
        self._expected: dict[str, Array] = {}

    def truth(self, seed: int) -> Array:
        """Return the true scores (genotype, score) of a seed's world.

        Raises:
            UserError: The seed is not 0 or a positive integer.
        """
        if not isinstance(seed, int) or seed < 0:
            raise UserError(f"seed is 0, 1, 2, ..., not {seed!r}")
        if self._latest is None or self._latest[0] != seed:
            rng = np.random.default_rng((seed, len(self._lost)))  # no genotype has this index
            self._latest = seed, self._model.true_scores(rng)
        return self._latest[1]

    def train(self, index: int, seed: int) -> Array:
        """Return all scores (score,) of a training of the genotype `index` in a seed's world."""
        true = self.truth(seed)[index]
        return true + self._model.noise(true, np.random.default_rng((seed, index)))

    def regrets(self, metric: str, seed: int) -> Array:
        """Return the regrets of all genotypes in a seed's world."""
        return regrets(self.truth(seed)[:, self._test_columns[metric]], metric, self._lost)

    def expected_regrets(self, metric: str) -> Array:
        """Return the mean regrets of all genotypes over the worlds."""
        if metric not in self._expected:
            rng = np.random.default_rng(0)
            column = self._test_columns[metric]
            drawn = (self._model.true_scores(rng)[:, column] for _ in range(DRAWS))
            worlds = [regrets(test, metric, self._lost) for test in drawn]
            self._expected[metric] = np.mean(worlds, axis=0)
        return self._expected[metric]


def regrets(test: Array, metric: str, lost: NDArray[np.bool_]) -> Array:
    """Return how much worse test scores are than the best; diverged genotypes are worst."""
    cost = find_metric(metric).sign * test
    regret = cost - cost[~lost].min()
    regret[lost] = regret[~lost].max()
    return np.asarray(regret)
