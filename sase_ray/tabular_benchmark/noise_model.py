"""Model of the true scores behind a ground-truth table, and of the noise of its trainings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from statsmodels.genmod import families
from statsmodels.genmod.generalized_linear_model import GLM

from sase_ray.statistics.variance_components import (
    best_linear_prediction,
    covariance_components,
    nearest_covariance,
    on_first_scale,
    residuals,
)

FEWEST_FOR_SLOPE = 20
"""Number of repeated genotypes below which the noise is assumed to be the same for all."""

Array = NDArray[np.float64]


class NoiseModel:
    """Effects of genotypes and noise of trainings, for all scores of a table jointly.

    A score is modelled as mean + effect of the genotype + noise, on the scale of the first seed
    (`on_first_scale`), as a search runs in the warm host of one seed. The scores of a training
    (validation and test, all epochs) have correlated effects and correlated noise. The logarithm of
    the noise's variance is linear in the genotype's effect on one score, the driver: genotypes
    that train worse also train less alike.

    Attributes:
        predicted: Best linear predictions (genotype, score) of the true scores.
        slopes: Changes (score,) of the logarithm of the noise's variance with the driver's effect,
            per standard deviation of that score.

    Args:
        scores: Recorded scores (genotype, seed, score); not finite where there is none.
        repeated: Indices of the genotypes that have all scores of all seeds, at least two.
        driver: Index of the score that the size of the noise depends on.
    """

    def __init__(self, scores: Array, repeated: NDArray[np.int64], driver: int) -> None:
        self._driver = driver
        scaled = on_first_scale(scores, repeated)
        spread = scaled[repeated].std(axis=(0, 1))
        self._unit = np.where(spread > 0, spread, 1.0)
        scaled = scaled / self._unit
        usable: NDArray[np.bool_] = np.asarray(np.isfinite(scaled).all(axis=2))
        count = usable.sum(axis=1)
        total = np.where(usable[:, :, None], scaled, 0.0).sum(axis=1)
        means = total / np.maximum(count, 1)[:, None]
        self._centre = means[count > 0].mean(axis=0)
        deviation = np.where(count[:, None] > 0, means - self._centre, 0.0)
        effects, noise = covariance_components(scaled[repeated])
        effects = nearest_covariance(effects)
        # The mean of a genotype without any training has no weight.
        share = 1 / np.maximum(count, 1e-9)[:, None, None]

        first, _ = best_linear_prediction(deviation, effects, noise * share)
        known = first[repeated, driver]
        self._range = float(known.min()), float(known.max())
        rest = residuals(scaled[repeated])
        self._middle = float(known.mean())
        self.slopes = _slopes(known - self._middle, rest)
        rest = rest / self._relative_noise(first)[repeated][:, None, :]
        genotypes, seeds = rest.shape[:2]
        freedom = (genotypes - 1) * (seeds - 1) / (genotypes * seeds)
        self._residuals = rest.reshape(-1, rest.shape[2]) / freedom**0.5
        noise = self._residuals.T @ self._residuals / len(self._residuals)

        size = self._relative_noise(first)
        own_noise = size[:, :, None] * noise * size[:, None, :]
        self._effects, error = best_linear_prediction(deviation, effects, own_noise * share)
        values, vectors = np.linalg.eigh((error + error.transpose(0, 2, 1)) / 2)
        self._error_root = vectors * np.sqrt(np.clip(values, 0, None))[:, None, :]
        self.predicted: Array = (self._centre + self._effects) * self._unit

    def true_scores(self, rng: np.random.Generator) -> Array:
        """Draw true scores (genotype, score) that agree with what was recorded.

        They are drawn around the predictions, with the covariance of the predictions' errors
        ("plausible values"), and so vary as much as the genotypes do; the predictions vary less.
        """
        draw = rng.standard_normal(self._effects.shape)
        moved = self._effects + np.einsum("gab,gb->ga", self._error_root, draw)
        return np.asarray((self._centre + moved) * self._unit)

    def noise(self, true: Array, rng: np.random.Generator) -> Array:
        """Draw the noise of one training of a genotype with true scores (score,).

        The noise is a standardised residual of a repeated genotype, for all scores at once, so
        that a lucky start stays lucky, scaled to the size that belongs to the genotype's effect.
        """
        effect = true / self._unit - self._centre
        size = self._relative_noise(effect[None])[0]
        return np.asarray(self._residuals[rng.integers(len(self._residuals))] * size * self._unit)

    def _relative_noise(self, effects: Array) -> Array:
        """Return the size of the noise (genotype, score), within the range of the repeated ones."""
        driver = np.clip(effects[:, self._driver], *self._range) - self._middle
        return np.asarray(np.exp(0.5 * driver[:, None] * self.slopes))


def _slopes(effect: Array, rest: Array) -> Array:
    """Fit log(noise variance) = a + slope * effect, for each score.

    This is a gamma regression, with a logarithmic link, of squared residuals on the effect ("joint
    modelling of mean and dispersion", McCullagh and Nelder, Generalized Linear Models, 1989,
    chapter 10).

    Args:
        effect: Effects (genotype,) on the driver.
        rest: Residuals (genotype, seed, score).
    """
    slopes = np.zeros(rest.shape[2])
    if len(effect) < FEWEST_FOR_SLOPE or np.ptp(effect) == 0:
        return slopes
    design = np.column_stack([np.ones_like(effect), effect])
    for score in range(len(slopes)):
        squares = (rest[:, :, score] ** 2).mean(axis=1)
        if squares.mean() < 1e-12:  # no noise except rounding
            continue
        squares = np.maximum(squares / squares.mean(), 1e-6)
        gamma = families.Gamma(families.links.Log())
        slopes[score] = GLM(squares, design, family=gamma).fit().params[1]
    return slopes
