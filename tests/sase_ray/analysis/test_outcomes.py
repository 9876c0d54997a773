"""The numbers behind the report, against planted effects and other computations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sase_ray import load_run
from sase_ray.analysis import main_effects, outcomes
from sase_ray.analysis.anytime import anytime
from sase_ray.report.combine import combine
from tests.sase_ray.made_up_run import as_errors


@pytest.fixture
def made(make_run):
    return load_run(make_run())


def test_the_winner_and_its_best_answer(made, planted):
    winner = outcomes.winner_of(made)
    assert winner.row["name"] == max(("random", "tpe", "darts"), key=planted["truth"].get)
    assert winner.alike == ()
    own = made.final[made.final["name"] == "tpe"]
    assert winner.genotypes[0] == own.loc[own["test_accuracy"].idxmax(), "module"]
    assert len(winner.genotypes) == planted["seeds"]


def test_strategies_with_the_same_mean_are_named(made):
    mean = made.strategies["test_accuracy"].max()
    made.strategies.loc[made.strategies["name"] == "darts", "test_accuracy"] = mean
    assert outcomes.winner_of(made).alike == ("darts",)


def test_ranks_pair_seeds_and_leave_baselines_out(made, planted):
    tests = outcomes.rank_tests(made)
    assert set(tests.blocks) == {"random", "tpe", "darts"}
    assert len(tests.blocks) == planted["seeds"]
    assert tests.ranks.idxmin() == "tpe"
    assert tests.overall < 0.01
    assert tests.can_draw
    assert set(tests.control["name"]) == {"tpe", "darts"}


def test_a_seed_that_diverged_is_in_no_block(made):
    final = made.final.copy()
    final.loc[(final["name"] == "tpe") & (final["seed"] == 3), "diverged"] = True
    made.final.loc[:, :] = final
    assert 3 not in outcomes.final_blocks(made).index


def test_where_lower_is_better_ranks_winner_and_agreement_are_the_same(made):
    """A falling function of the results changes no rank, and no direction."""
    errors = as_errors(made)
    assert outcomes.final_column(errors) == "test_normalised_error"
    first, second = outcomes.rank_tests(made), outcomes.rank_tests(errors)
    pd.testing.assert_series_equal(first.ranks, second.ranks)
    assert first.overall == pytest.approx(second.overall)
    for winner in (outcomes.winner_of(made), outcomes.winner_of(errors)):
        assert winner.row["name"] == "tpe"
        own = made.final[made.final["name"] == "tpe"]
        ordered = own.sort_values("test_accuracy", ascending=False)["module"]
        assert list(winner.genotypes) == list(dict.fromkeys(ordered))
    assert outcomes.proxy_agreement(errors).tau == outcomes.proxy_agreement(made).tau


def test_ratios_are_compared_by_their_logarithms(made):
    errors = as_errors(made)
    blocks = outcomes.final_blocks(errors)
    mean = errors.final.groupby(["seed", "name"])["test_normalised_error"].mean()
    np.testing.assert_allclose(
        blocks.loc[2, "tpe"] - blocks.loc[2, "random"],
        np.log(mean[2, "tpe"] / mean[2, "random"]),
    )


def test_a_run_of_an_earlier_version_is_shown_by_the_metric_that_it_was_compared_by(made):
    errors = as_errors(made)
    renamed = {"test_normalised_error": "test_agreement"}
    strategies = errors.strategies.rename(columns=renamed)
    final = errors.final.drop(columns="test_normalised_error")
    final = final.assign(test_agreement=final["test_accuracy"])
    old = replace(errors, strategies=strategies, final=final)
    assert outcomes.final_column(old) == "test_agreement"
    assert outcomes.final_metric(old).direction == "max"


def test_anytime_is_the_mean_of_the_searches_and_never_rises(made):
    curves = anytime(made, "trials")
    assert set(curves["strategy"]) == {"random", "tpe"}
    last = (
        made.curves[made.curves["strategy"] == "tpe"].groupby("seed")["incumbent_val_loss"].last()
    )
    own = curves[curves["strategy"] == "tpe"]
    assert own["value"].iloc[-1] == pytest.approx(last.mean())
    assert own["trials"].iloc[-1] == 12
    assert (own["value"].diff().dropna() <= 1e-12).all()


def test_bands_do_not_see_what_a_seed_does_to_all(made):
    before = anytime(made)
    shift = made.curves["seed"] * 5.0
    made.curves["incumbent_val_loss"] += shift
    after = anytime(made)
    np.testing.assert_allclose(after["high"] - after["low"], before["high"] - before["low"])


def test_agreement_is_within_seeds(made, planted):
    paired = outcomes.proxy_and_final(made)
    assert len(paired) == 2 * planted["seeds"]
    signs = []
    for _, own in paired.groupby("seed"):
        (proxy_a, final_a), (proxy_b, final_b) = own[["proxy", "final"]].to_numpy()
        signs.append(np.sign((proxy_b - proxy_a) * (final_a - final_b)))
    assert outcomes.proxy_agreement(made).tau == pytest.approx(np.mean(signs))


def test_runs_side_by_side_share_no_seed_and_no_name(made):
    both = combine([made, made])
    assert both.strategies["name"].is_unique
    assert both.searches.groupby("seed").size().max() == 3
    assert outcomes.rank_tests(both) is None


def test_the_planted_effect_is_found_and_is_the_only_one(made, planted):
    found = main_effects.main_effects(made)
    assert found.joint
    effect = found.effects.set_index(["edge", "operation"]).loc[
        ("channel_squeeze", planted["better"])
    ]
    # Against the mean of seven main_effects, of which it is one.
    assert effect["low"] < -planted["effect"] * 6 / 7 < effect["high"] < 0
    assert found.edges.loc[found.edges["p_holm"] < 0.05, "edge"].tolist() == ["channel_squeeze"]
    shares = main_effects.operation_shares(made).set_index(["edge", "operation"])
    assert shares.loc[("channel_squeeze", planted["better"]), "low"] > 1 / 7
    assert shares.groupby("edge")["good"].sum().tolist() == pytest.approx([1] * 6)


def test_effects_equal_those_of_dummy_coding(made):
    """The same model by numpy's least squares, with the first operation as the reference."""
    found = main_effects.main_effects(made).effects
    trained = main_effects.trained_genotypes(made)
    variables = main_effects.variables_of(trained)
    dummies = pd.get_dummies(trained[variables], drop_first=True, prefix=variables)
    design = np.hstack([pd.get_dummies(trained["seed"]), dummies]).astype(float)
    solved = np.linalg.lstsq(design, trained["score"], rcond=None)[0]
    fitted = pd.Series(solved[-dummies.shape[1] :], index=dummies.columns)
    for edge, own in found.groupby("edge"):
        raw = np.array([fitted.get(f"{edge}_{op}", 0.0) for op in own["operation"]])
        np.testing.assert_allclose(own["effect"], raw - raw.mean(), atol=1e-9)


def test_a_genotype_that_two_strategies_trained_alike_counts_once(reference):
    run = load_run(reference)
    trained = main_effects.trained_genotypes(run)
    assert not trained.duplicated(["genotype", "seed"]).any()
    done = run.trials[(run.trials["status"] == "finished") & (run.trials["family"] != "one-shot")]
    assert len(trained) == len(done[["genotype", "seed"]].drop_duplicates()) < len(done)
    assert not main_effects.main_effects(run).joint


def test_too_few_trainings_say_nothing(made):
    few = made.trials.groupby("strategy").head(4)
    made.trials.drop(index=made.trials.index.difference(few.index), inplace=True)
    assert main_effects.main_effects(made) is None
    assert main_effects.operation_shares(made).empty
