"""Strategies that begin with what another search has found."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import yaml

from sase_ray import compare
from sase_ray.config import load_config
from sase_ray.execution.experiment import Experiment
from sase_ray.strategies import WarmStart
from sase_ray.strategies.catalogue import make_strategy
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace

SPACE = SearchSpace.load("sase_tiny")
BEST = [str(SPACE[i]) for i in (700, 3, 44)]


@pytest.fixture
def earlier(tmp_path):
    """The folder of a run in which rsws has searched twice."""
    folder = tmp_path / "earlier"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"config": {"dataset": "digits"}}))
    rows = [{"strategy": "rsws", "seed": seed, "genotype": BEST[0]} for seed in (0, 1)]
    searches = pd.DataFrame(rows).assign(samples=300, seconds=1.5, trials=1)
    searches.to_parquet(folder / "searches.parquet")
    rankings = [
        {"strategy": "rsws", "seed": seed, "rank": rank, "genotype": text, "score": rank / 10}
        for seed in (0, 1)
        for rank, text in reversed(list(enumerate(BEST, start=1)))
    ]
    pd.DataFrame(rankings).assign(score_is="loss").to_parquet(folder / "rankings.parquet")
    return folder


def setup_of(tiny, earlier, **overrides):
    given = {"strategies": ["tpe+rsws"], "budget": 2000, "warm_start_from": str(earlier)}
    return Experiment.of(load_config(None, tiny | given | overrides))


def test_the_first_trials_are_the_best_of_the_other_search_and_its_cost_counts(tiny, earlier):
    setup = setup_of(tiny, earlier, warm_start_genotypes=2)
    strategy = setup.strategies["tpe+rsws"]
    warm = setup.warm_start(strategy, 1)
    assert warm == WarmStart(tuple(map(SPACE.parse, BEST[:2])), 300, 1.5)
    plan = strategy.plan(replace(setup.task(1), warm=warm))
    assert (plan.samples_before, plan.seconds_before) == (300, 1.5)
    plan.searcher.set_search_properties("val_loss", "min", dict(plan.param_space))
    drawn = [str(SPACE.from_config(plan.searcher.suggest(str(i)))) for i in range(3)]
    assert drawn[:2] == BEST[:2]
    assert drawn[2] not in BEST[:2]


def test_a_strategy_of_its_own_starts_from_nothing(tiny, earlier):
    setup = setup_of(tiny, earlier, strategies=["tpe", "tpe+rsws"])
    assert setup.warm_start(setup.strategies["tpe"], 0) == WarmStart()


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ({"warm_start_from": None}, r"'tpe\+rsws' needs --warm-start-from"),
        ({"seeds": 3}, "no search of rsws with seed 2"),
        ({"strategies": ["tpe+darts"]}, "no search of darts with seed 0"),
        ({"space": "sase"}, "searched another space|has no operation|unknown operation"),
        ({"budget": 400}, "the search that it starts from, one trial .* sees"),
        ({"warm_start_from": "nowhere"}, "there is no run nowhere"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(overrides, why, tiny, earlier):
    if overrides.get("space"):
        rankings = pd.read_parquet(earlier / "rankings.parquet")
        rankings.assign(genotype="a-b-c-d-e-f").to_parquet(earlier / "rankings.parquet")
    with pytest.raises(UserError, match=why):
        setup_of(tiny, earlier, **overrides)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("darts+tpe", "darts takes no genotypes to start from"),
        ("grid+darts", "grid takes no genotypes"),
        ("tpe+dart", "did you mean 'darts'"),
        ("tep+darts", "did you mean 'tpe'"),
        ("tpe+", "strategy"),
    ],
)
def test_only_strategies_of_trials_can_start_from_others(name, why):
    with pytest.raises(UserError, match=why):
        make_strategy(name)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_hybrid_stands_beside_its_parents(tiny):
    tiny = {**tiny, "seeds": 1, "baselines": []}
    parents = compare(tiny, strategies=["rsws"], budget=540, run="parents")
    hybrid = ["random", "random+rsws"]
    result = compare(
        tiny, strategies=hybrid, budget=1_200, warm_start_from=str(parents.folder), run="hybrid"
    )
    assert set(hybrid) <= set(result.table["name"])
    (spent,) = pd.read_parquet(parents.folder / "searches.parquet")["samples"]
    (best,) = pd.read_parquet(parents.folder / "rankings.parquet").query("rank == 1")["genotype"]
    trials = pd.read_parquet(result.folder / "trials.parquet").query("strategy == 'random+rsws'")
    searches = pd.read_parquet(result.folder / "searches.parquet").set_index("strategy")
    assert trials["genotype"].iloc[0] == best
    samples = searches.loc["random+rsws", "samples"]
    assert samples == trials["samples"].sum() + spent
    assert samples <= 1_200
