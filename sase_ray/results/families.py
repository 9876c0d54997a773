"""The families of strategies, as the tables name them, and what they mean for a row."""

from __future__ import annotations

from typing import Literal

import pandas as pd

Family = Literal["black-box", "one-shot", "training-free"]
TRAINS_GENOTYPES: Family = "black-box"


def is_of_trained_genotypes(table: pd.DataFrame) -> pd.Series:
    """Return for each row whether its strategy trains each genotype on its own.

    In the metrics of such a strategy's trials, genotypes can be compared; a trial of any other
    strategy concerns a supernet, or no training at all.

    Args:
        table: Table with a column `family`.
    """
    return table["family"].eq(TRAINS_GENOTYPES)
