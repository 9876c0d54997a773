"""Recovery of planted genotypes: counts by hand, ranks, errors, and what is said of them."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from sase_ray.analysis.recovery import recovery_reading, recovery_rows, recovery_summary
from sase_ray.results.history import History, SearchOutcome
from search_spaces.genotype import Genotype
from search_spaces.space import SearchSpace

PLANTS = {
    0: Genotype.parse("gap_gmp-fc-affine-pnorm-gap-conv7x7"),
    1: Genotype.parse("cov-conv3-fc-gap-gap_std-affine"),
}


def _outcome(strategy: str, seed: int, *ranked: str) -> SearchOutcome:
    ranking = [(Genotype.parse(text), float(i)) for i, text in enumerate(ranked)]
    return SearchOutcome(strategy, seed, ranking, "loss", History("val_loss", "min"), 0, 0.0)


def _rows(**errors: float) -> pd.DataFrame:
    outcomes = [
        _outcome("darts", 0, str(PLANTS[0]), "gap-fc-affine-pnorm-gap-conv7x7"),
        _outcome("darts", 1, "cov-conv3-fc-gap-gap_std-conv3x3", str(PLANTS[1])),
        _outcome("random", 0, "gap-conv3-fc-gap-pnorm-affine"),
        _outcome("random", 1, "gap-conv3-affine-pnorm-gap-conv3x3"),
    ]
    finals = pd.DataFrame(
        [
            {"name": name, "seed": seed, "test_normalised_error": error, "diverged": lost}
            for name, seed, error, lost in (
                ("darts", 0, 0.25, False), ("darts", 0, 0.5, False), ("darts", 1, 0.5, False),
                ("random", 0, 0.75, False), ("random", 1, 99.0, True),
                ("planted", 0, 0.25, False), ("planted", 1, 0.125, False),
            )
        ]
    )  # fmt: skip
    space = SearchSpace.load("sase_tiny")
    return pd.DataFrame(recovery_rows(outcomes, finals, PLANTS, space))


def test_edges_ranks_and_errors_are_those_counted_by_hand() -> None:
    rows = _rows()
    assert rows["recovered"].tolist() == [6, 5, 0, 1]
    assert rows["which"].tolist()[3] == "channel_excite"
    assert (rows["edges"] == 6).all()
    assert rows["chance"].tolist() == pytest.approx([6 / 3] * 4)
    assert rows["rank"].tolist()[:2] == [1, 2]
    assert rows["rank"].isna().tolist() == [False, False, True, True]
    # The mean of two trainings is geometric.
    assert rows["excess"].tolist()[:3] == pytest.approx([0.125**0.5 - 0.25, 0.375, 0.5])
    assert math.isnan(rows["excess"][3])  # its final training diverged


def test_strategies_are_summed_up_over_plants() -> None:
    summary = recovery_summary(_rows()).set_index("strategy")
    assert list(summary.index) == ["darts", "random"]
    assert summary.loc["darts", ["recovered", "found", "ranked", "plants"]].tolist() == [
        5.5,
        1,
        2,
        2,
    ]
    # Seed 0 has trainings of 0.25 and 0.5, seed 1 one of 0.5; the plants have 0.25 and 0.125.
    of_seeds = [(0.25 * 0.5) ** 0.5, 0.5]
    assert summary.loc["darts", "error"] == pytest.approx((of_seeds[0] * of_seeds[1]) ** 0.5)
    assert summary.loc["darts", "plant_error"] == pytest.approx((0.25 * 0.125) ** 0.5)
    ratios = [of_seeds[0] / 0.25, of_seeds[1] / 0.125]
    assert summary.loc["darts", "times"] == pytest.approx((ratios[0] * ratios[1]) ** 0.5)
    assert math.isnan(summary.loc["random", "p_holm"])
    reading = " ".join(recovery_reading(_rows()))
    assert "darts 5.50" in reading
    assert "blind guessing gives 2.00" in reading
    assert "random 3." in reading
    assert "which is 0.177 (geometric means)" in reading


def test_one_plant_is_told_by_its_edges_and_ranks() -> None:
    rows = _rows()
    reading = " ".join(recovery_reading(rows[rows["seed"] == 1]))
    assert str(PLANTS[1]) in reading
    assert "random 1 (channel_excite)" in reading
    assert "darts 2 of 2; random not at all" in reading
    assert "interval" not in reading


def test_a_search_without_final_trainings_tells_edges_and_no_errors() -> None:
    outcome = _outcome("darts", 0, "gap-fc-affine-pnorm-gap-conv7x7", str(PLANTS[0]))
    space = SearchSpace.load("sase_tiny")
    rows = pd.DataFrame(recovery_rows([outcome], None, PLANTS, space))
    assert rows["recovered"].tolist() == [5]
    assert rows[["error", "plant_error", "excess"]].isna().all(axis=None)
    reading = " ".join(recovery_reading(rows))
    assert "darts 2 of 2" in reading
    assert "error" not in reading


def test_a_run_without_plants_says_nothing() -> None:
    assert list(recovery_reading(pd.DataFrame())) == []
