"""What the reading of a comparison on a table says first."""

from __future__ import annotations

import pandas as pd
import pytest

from sase_ray.analysis.regret import rank_strategies, reading_of
from sase_ray.tabular_benchmark.benchmark import TabularBenchmark


@pytest.fixture(scope="module")
def ends():
    cost = {"trials": 3, "samples": 10, "seconds": 1.0}
    rows = [{"strategy": s, "seed": i, "regret": 0.1 * i} | cost for s in "ab" for i in range(5)]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("validity", "said"),
    [
        (None, "has not been measured"),
        (
            (0.28, 0.14),
            "is not shown to rank genotypes as final trainings do: Kendall's tau is 0.28",
        ),
        ((-0.5, 0.01), "is not shown to rank"),
        ((0.6, 0.001), "this table ranks genotypes as final trainings do: Kendall's tau is 0.60"),
    ],
)
def test_the_reading_begins_with_the_validity(made_up_table, ends, validity, said) -> None:
    about = dict(made_up_table.about)
    if validity is not None:
        tau, p = validity
        about["validity"] = {"of": "test loss", "tau": tau, "p_value": p, "genotypes": 16}
    table = TabularBenchmark(made_up_table.rows, about)
    reading = list(reading_of(rank_strategies(ends), ends, table, "val_loss", noise=True))
    assert reading[0].startswith("Validity: ")
    assert said in reading[0]


def test_the_icc_is_that_of_the_scores_as_recorded(made_up_table, ends) -> None:
    # The second seed spreads the scores tenfold: one scale would hide that, the ICC does not.
    rows = made_up_table.rows
    wide = rows["val_loss"].where(rows["seed"] != 1, 10 * rows["val_loss"])
    table = TabularBenchmark(rows.assign(val_loss=wide), made_up_table.about)
    assert table.reliability().icc() < 0.5 < made_up_table.reliability().icc()
    reading = " ".join(reading_of(rank_strategies(ends), ends, table, "val_loss", noise=True))
    assert f"ICC of one training in this table is {table.reliability().icc():.2f}" in reading
    # Within one warm host, where a search is, drawn trainings do not see the other's spread.
    drawn = [table.draw(g, seed=3).val_loss for g in table.genotypes]
    expected = [made_up_table.draw(g, seed=3).val_loss for g in table.genotypes]
    assert pd.Series(drawn).std() == pytest.approx(pd.Series(expected).std(), rel=0.15)
