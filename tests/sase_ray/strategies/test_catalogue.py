"""The catalogue of strategies, and what each refuses before anything is started."""

from __future__ import annotations

import zlib
from dataclasses import replace
from itertools import islice
from typing import get_args

import pandas as pd
import pytest
from ray.tune.result import DONE, TRAINING_ITERATION

from sase_ray.execution.budget import Budget
from sase_ray.execution.search_logic import SearchLogic
from sase_ray.results.families import Family, is_of_trained_genotypes
from sase_ray.strategies import BlackBox, SearchTask, Strategy
from sase_ray.strategies.catalogue import make_strategy, strategies
from sase_ray.strategies.registry import tries_blindly
from search_spaces.errors import UserError
from trainables.metrics import find_metric

NAMES = list(strategies())
BLACK_BOX = [name for name, strategy in strategies().items() if issubclass(strategy, BlackBox)]


def test_the_catalogue_has_every_strategy():
    assert {"asha", "darts", "darts-2nd", "grid", "random", "tpe", "tpe-asha"} <= set(NAMES)
    assert sorted(NAMES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_row_says_what_it_is_and_where_it_is_from(name):
    strategy = strategies()[name]
    assert issubclass(strategy, Strategy)
    assert strategy.name == name
    assert strategy.family in get_args(Family)
    assert not (strategy.trains_genotypes and strategy.trains_supernet)
    table = pd.DataFrame({"family": [strategy.family, "baseline"]})
    assert is_of_trained_genotypes(table).tolist() == [strategy.trains_genotypes, False]
    assert (
        any(character.isdigit() for character in strategy.source)
        or "enumeration" in strategy.source
    )
    assert len(strategy.summary) > 10
    assert strategy.__doc__


def test_the_summaries_tell_the_strategies_apart():
    assert len({s.summary for s in strategies().values()}) == len(strategies())


def test_an_unknown_strategy_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"tpe-asah.*tpe-asha"):
        make_strategy("tpe-asah")


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_named(name):
    with pytest.raises(UserError, match=f"(?s){name}.*no_such_option|no_such_option.*{name}"):
        make_strategy(name, {"no_such_option": 1})


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("asha", {"reduction": 1}, "reduction"),
        ("darts", {"alpha_lr": "quick"}, "alpha_lr"),
        ("darts-2nd", {"batch_size": 1}, "batch_size"),
        ("tpe", {"startup_trials": 0}, "startup_trials"),
    ],
)
def test_an_option_out_of_range_is_named(name, options, named):
    with pytest.raises(UserError, match=named):
        make_strategy(name, options)


def test_options_are_kept():
    assert make_strategy("asha", {"grace_epochs": 2, "reduction": 4}).grace_epochs == 2
    assert make_strategy("darts", {"alpha_betas": (0.9, 0.99)}).alpha_betas == (0.9, 0.99)


@pytest.mark.parametrize("name", BLACK_BOX)
def test_a_budget_below_one_trial_is_refused_with_the_number_that_is_needed(name, make_job):
    job = make_job(train=90, epochs=3, batch_size=16)
    make_strategy(name).check(SearchTask(job, 300))
    with pytest.raises(UserError, match=r"299.*300"):
        make_strategy(name).check(SearchTask(job, 299))


@pytest.mark.parametrize(("name", "needed"), [("darts", 96), ("darts-2nd", 240)])
def test_a_budget_below_one_step_is_refused_with_the_number_that_is_needed(name, needed, make_job):
    job = make_job(train=96)  # halves of 48 images, less than the batch of 64
    make_strategy(name).check(SearchTask(job, needed))
    with pytest.raises(UserError, match=rf"{needed - 1}.*{needed}"):
        make_strategy(name).check(SearchTask(job, needed - 1))


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_is_fresh_each_time(name, make_job):
    task = SearchTask(make_job(), 10_000)
    strategy = make_strategy(name)
    first, second = strategy.plan(task), make_strategy(name).plan(task)
    if strategy.trains_genotypes:
        assert first.samples_per_epoch == 96 + 20
    if strategy.trains_supernet:
        assert (first.samples_per_epoch, first.max_trials) == (0, 1)
        assert strategy.footprint(task) > 0
    else:
        assert strategy.footprint(task) == 0
    for part in ("searcher", "scheduler"):
        one, other = getattr(first, part), getattr(second, part)
        assert (one is None and other is None) or one is not other


def test_asha_stops_trials_early(make_job):
    task = SearchTask(make_job(), 10_000)
    early = {name for name in BLACK_BOX if make_strategy(name).plan(task).scheduler is not None}
    assert {"asha", "tpe-asha"} <= early
    assert not {"random", "grid", "tpe"} & early


@pytest.mark.parametrize("name", BLACK_BOX)
def test_only_a_blind_strategy_tries_the_same_genotypes_whatever_their_results(name, make_job):
    task = SearchTask(make_job(), 100_000)

    def tried(salt):
        plan = make_strategy(name).plan(task)
        logic = SearchLogic(plan, "val_loss", "min", Budget(100_000, 10, 1))
        epochs = 0
        for trial in islice(iter(logic.begin, None), 40):
            for epoch in range(1, task.job.protocol.epochs + 1):
                epochs += 1
                ends = epoch == task.job.protocol.epochs
                result = {
                    "val_loss": hash_of(trial.config, salt),
                    "samples": 10 * epoch,
                    "epoch": epoch,
                    "diverged": False,
                    "finished": ends,
                    TRAINING_ITERATION: epoch,
                    DONE: ends,
                }
                if logic.result(trial.trial_id, result):
                    break
            yield tuple(trial.config.values()), epochs

    assert ([*tried(0)] == [*tried(1)]) == tries_blindly(name)


def hash_of(config, salt):
    """Return a number from 0 to 1 that stands for the loss of a config."""
    return zlib.crc32(f"{sorted(config.items())} {salt}".encode()) / 2**32


def test_a_strategy_that_starts_elsewhere_or_is_unknown_is_not_blind():
    assert tries_blindly("random")
    assert not any(tries_blindly(label) for label in ("random+rsws", "of a plugin"))


@pytest.mark.parametrize("name", NAMES)
def test_what_trials_are_compared_by_and_what_the_ranking_is_by_is_declared(name, make_job):
    task = SearchTask(make_job(), 10_000, metric="val_accuracy")
    strategy = make_strategy(name)
    for metric in (strategy.metric(task), strategy.ranks_by(task)):
        assert find_metric(metric).mode in ("min", "max")
    if strategy.trains_genotypes:
        assert strategy.metric(task) == strategy.ranks_by(task) == "val_accuracy"


def test_the_metric_decides_what_is_better(make_job):
    task = SearchTask(make_job(), 10_000)
    assert (task.metric, task.mode) == ("val_loss", "min")
    assert replace(task, metric="val_accuracy").mode == "max"


def test_searches_that_repeat_nothing_end_with_the_space(make_job):
    task = SearchTask(make_job(), 10_000)
    for name in ("grid", "random", "asha"):
        assert make_strategy(name).plan(task).max_trials == 729
    assert make_strategy("tpe").plan(task).max_trials is None


def test_grid_trains_the_listed_genotypes_alone(make_job):
    task = SearchTask(make_job(), 10_000)
    listed = ["gap-conv3-fc-gap-pnorm-affine", "cov-fc-affine-gap-gap-conv3x3"]
    strategy = make_strategy("grid", {"genotypes": listed})
    plan = strategy.plan(task)
    assert plan.max_trials == 2
    plan.searcher.set_search_properties("val_loss", "min", dict(plan.param_space))
    asked = [task.job.space.from_config(plan.searcher.suggest(str(i))) for i in range(2)]
    assert [str(genotype) for genotype in asked] == listed
    with pytest.raises(UserError, match="gap_skew"):
        make_strategy("grid", {"genotypes": ["gap_skew-fc-fc-gap-gap-affine"]}).check(task)


def test_grid_refuses_a_space_too_large_to_walk(make_job, write_space):
    ops = ["gap", "gap_gmp", "gap_std", "l2norm", "pnorm", "cov", "gap_skew"]
    path = write_space({"channel_squeeze": ops}, scope="stage", stages=9)
    task = SearchTask(make_job(path), 10_000)
    with pytest.raises(UserError, match="spaces of up to 1,000,000"):
        make_strategy("grid").check(task)


def test_random_search_draws_no_genotype_twice(make_job):
    task = SearchTask(make_job(), 10_000)
    plan = make_strategy("random").plan(task)
    plan.searcher.set_search_properties("val_loss", "min", dict(plan.param_space))
    drawn = [tuple(plan.searcher.suggest(str(i)).values()) for i in range(300)]
    assert len(set(drawn)) == 300
