"""One-shot rankings held against a ground-truth table."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kendalltau

from sase_ray.analysis.one_shot_agreement import GENOTYPES, Truth
from sase_ray.config import load_config
from sase_ray.results.history import History, SearchOutcome
from sase_ray.tabular_benchmark.file_format import write_benchmark
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace

SPACE = SearchSpace.load("sase_tiny")


@pytest.fixture(scope="module")
def table(make_table):
    """A table of the digits set, its host recorded as a configuration has it."""
    made = make_table(repeated=150)
    backbone = load_config(None, {"dataset": "digits"}).backbone.model_dump(mode="json")
    made.about["config"] |= {"dataset": "digits", "backbone": backbone}
    return made


@pytest.fixture
def path(table, tmp_path):
    write_benchmark(table.rows, table.about, tmp_path / "truth.parquet")
    return str(tmp_path / "truth.parquet")


@pytest.fixture
def truth(path):
    found = Truth.of(load_config(None, {"dataset": "digits", "agreement": path}), SPACE)
    assert found is not None
    return found


def outcome(scores, strategy="darts", seed=0):
    history = History("val_loss", "min")
    history.evaluations += [{"epoch": 1}, {"epoch": 2, "scores": scores}]
    return SearchOutcome(strategy, seed, [], "", history, 0, 0.0)


def test_without_a_table_nothing_is_asked():
    assert Truth.of(load_config(None, {"dataset": "digits"}), SPACE) is None


def test_the_same_hundred_genotypes_are_asked_about_and_those_known_best_first(truth, table, path):
    assert len(set(truth.genotypes)) == GENOTYPES
    assert {str(g) for g in truth.genotypes} <= set(table.repeated_genotypes)
    again = Truth.of(load_config(None, {"dataset": "digits", "agreement": path}), SPACE)
    assert again == truth


def test_the_truth_is_what_the_table_was_made_of(truth, table):
    made_of = [table.made_of[str(genotype)] for genotype in truth.genotypes]
    assert kendalltau(truth.losses, made_of).statistic > 0.75


def test_the_ceiling_is_the_agreement_of_two_trainings(truth, table):
    last = table.rows[table.rows["epoch"] == 3]
    grid = last.pivot(index="genotype", columns="seed", values="val_loss").dropna()
    pairs = [kendalltau(grid[a], grid[b]).statistic for a, b in combinations(grid, 2)]
    assert truth.ceiling == pytest.approx(np.mean(pairs))


def test_a_search_that_knows_the_truth_has_a_tau_of_one(truth):
    (row,) = truth.rows([outcome([-loss for loss in truth.losses])])
    assert row == {
        "strategy": "darts", "seed": 0, "tau": 1.0, "low": 1.0, "high": 1.0, "genotypes": GENOTYPES,
    }  # fmt: skip


def test_scores_of_chance_are_called_blind_and_others_are_not(truth):
    rng = np.random.default_rng(0)
    chance = rng.normal(size=GENOTYPES).tolist()
    knowing = [-loss for loss in truth.losses]
    rows = list(truth.rows([outcome(chance, "rsws"), outcome(knowing), outcome(knowing, seed=1)]))
    assert rows[0]["low"] < 0 < rows[0]["high"]
    tau, blind = truth.reading(rows)
    assert "darts 1.00 (1.00 to 1.00)" in tau
    assert f"agree with each other by {truth.ceiling:.2f}" in tau
    assert "No search of rsws ranks" in blind


def test_searches_without_an_opinion_have_no_row(truth):
    black_box = SearchOutcome("tpe", 0, [], "", History("val_loss", "min"), 0, 0.0)
    assert list(truth.rows([black_box])) == []
    assert list(truth.reading([])) == []


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ({"backbone": {"name": "resnet20"}}, "trained with backbone"),
        ({"dataset": "fashion_mnist"}, "trained with dataset"),
        ({"agreement": "nowhere.parquet"}, "there is no table nowhere.parquet"),
    ],
)
def test_a_table_of_something_else_is_refused(overrides, why, path):
    config = load_config(None, {"dataset": "digits", "agreement": path} | overrides)
    with pytest.raises(UserError, match=why):
        Truth.of(config, SPACE)


def test_a_table_of_another_space_is_refused(path):
    config = load_config(None, {"dataset": "digits", "agreement": path})
    with pytest.raises(UserError, match="of space 'sase_tiny', not of 'sase'"):
        Truth.of(config, SearchSpace.load("sase"))
