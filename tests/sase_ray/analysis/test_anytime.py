"""Bands of anytime curves against the paired t-interval, which they should agree with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from sase_ray import load_run
from sase_ray.analysis.anytime import anytime


@pytest.fixture
def made(make_run):
    return load_run(make_run())


def test_the_bands_of_two_strategies_are_those_of_their_paired_difference(made):
    # Morey 2008: corrected bands of two conditions, times sqrt(2), are the paired interval.
    last = made.curves.groupby(["strategy", "seed"])["incumbent_val_loss"].last()
    difference = (last["random"] - last["tpe"]).to_numpy()
    n = len(difference)
    half = stats.t.ppf(0.975, n - 1) * difference.std(ddof=1) / n**0.5
    curves = anytime(made, "trials")
    for name in ("random", "tpe"):
        end = curves[curves["strategy"] == name].iloc[-1]
        assert (end["high"] - end["low"]) / 2 * 2**0.5 == pytest.approx(half)


def test_the_band_of_one_strategy_is_the_t_interval_of_its_searches(made):
    made = replace(made, curves=made.curves[made.curves["strategy"] == "tpe"])
    last = made.curves.groupby("seed")["incumbent_val_loss"].last()
    end = anytime(made, "trials").iloc[-1]
    low, high = stats.t.interval(0.95, len(last) - 1, last.mean(), stats.sem(last))
    np.testing.assert_allclose([end["low"], end["high"]], [low, high])
