"""Tables that grow search by search hold what tables written at once hold."""

from __future__ import annotations

import random

import pandas as pd

from sase_ray.execution.result_tables import ResultTables
from sase_ray.results.folder import RunFolder
from sase_ray.results.history import History, SearchOutcome
from sase_ray.results.rows import alpha_rows, curve_rows, ranking_rows, search_rows, trial_rows
from sase_ray.results.search_id import SearchId
from search_spaces.space import SearchSpace

SPACE = SearchSpace.load("sase")
FAMILIES = {"random": "black-box", "darts": "one-shot"}


def outcome_of(search, *, fails=False):
    """A search of three trials of two epochs, or of one with alpha; the last one may fail."""
    rng = random.Random(str(search))
    history = History("val_loss", "min")
    one_shot = search.strategy == "darts"
    for trial in range(1 if one_shot else 3):
        genotype = str(SPACE.sample(rng))
        for epoch in (1, 2):
            row = {
                "genotype": genotype, "epoch": epoch, "samples": 100 * epoch,
                "train_seconds": 0.5 * epoch, "train_loss": rng.random(), "val_loss": rng.random(),
                "val_accuracy": rng.random(), "diverged": False, "reason": "",
                "finished": epoch == 2,
            }  # fmt: skip
            if one_shot:
                row["alpha"] = {
                    v.name: [1 / len(v.choices)] * len(v.choices) for v in SPACE.variables
                }
                row["ranking"], row["entropy"] = [(genotype, 0.5)], rng.random()
            history.add(f"{trial:05d}", row)
    if fails:
        history.failures["00003"] = "ValueError: why"
    ranking = history.last_ranking() if one_shot else history.ranked_trials()
    return SearchOutcome(
        search.label, search.seed, ranking, "val_loss", history, history.samples, history.seconds
    )


def test_they_hold_all_searches_in_the_order_of_the_run(tmp_path):
    searches = [SearchId(name, seed) for seed in (0, 1) for name in FAMILIES]
    outcomes = {s: outcome_of(s, fails=s == searches[2]) for s in searches}
    tables = ResultTables(RunFolder(tmp_path), SPACE, FAMILIES, searches)
    for ended in (2, 0, 3, 1):  # as searches end
        tables.search_ended(searches[ended], outcomes[searches[ended]])
    in_order = list(outcomes.values())
    expected = {
        "searches": search_rows(in_order),
        "trials": trial_rows(in_order, FAMILIES),
        "curves": curve_rows(in_order),
        "alpha": alpha_rows(in_order, SPACE),
        "rankings": ranking_rows(in_order),
    }
    assert {path.stem for path in tmp_path.glob("*.parquet")} == set(expected)
    for name, rows in expected.items():
        pd.DataFrame(list(rows)).to_parquet(tmp_path / "at_once")
        at_once = pd.read_parquet(tmp_path / "at_once")
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"{name}.parquet"), at_once)


def test_a_search_is_written_as_it_ends(tmp_path):
    searches = [SearchId("random", 0), SearchId("random", 1)]
    tables = ResultTables(RunFolder(tmp_path), SPACE, FAMILIES, searches)
    tables.search_ended(searches[1], outcome_of(searches[1]))
    assert pd.read_parquet(tmp_path / "searches.parquet")["seed"].tolist() == [1]
    assert len(pd.read_parquet(tmp_path / "curves.parquet")) == 6
