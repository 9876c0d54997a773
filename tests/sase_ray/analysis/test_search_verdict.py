"""What a search says of its own first rank."""

from __future__ import annotations

import pandas as pd
import pytest
from scipy import stats

from sase_ray.analysis.search_verdict import early_stops, narrow_views, rank_confidence
from sase_ray.results.history import History, SearchOutcome
from search_spaces.space import SearchSpace
from trainables.metrics import SHARED_LOSS
from trainables.one_shot.trainable import STOPPED_EARLY

SPACE = SearchSpace.load("sase_tiny")


def outcome(losses, **row):
    history = History("val_loss", "min")
    history.evaluations.append(row)
    ranking = list(zip(list(SPACE)[: len(losses)], losses, strict=True))
    return SearchOutcome("tpe", 0, ranking, "", history, 0, 0.0)


def confidence(found, measured=None, *, trained=False, by="log_probability"):
    return list(rank_confidence(found, SPACE, measured, trains_genotypes=trained, ranks_by=by))


def test_a_lead_is_held_against_the_noise_of_two_trials():
    (sentence,) = rank_confidence(
        outcome([1.00, 1.01]),
        SPACE,
        pd.Series({"sd_residual": 0.02}),
        trains_genotypes=True,
        ranks_by="val_loss",
    )
    luck = 2 * stats.norm.cdf(-0.01 / (0.02 * 2**0.5))
    assert f"in {luck:.0%} of all cases" in sentence
    assert "leads the second by 0.0100" in sentence


@pytest.mark.parametrize("measured", [None, pd.Series({"icc": 0.5})])
def test_where_the_noise_is_unknown_it_says_so(measured):
    (sentence,) = confidence(outcome([1.0, 1.1]), measured, trained=True, by="val_loss")
    assert "has not been measured" in sentence


def test_one_trial_compares_nothing():
    (sentence,) = confidence(outcome([1.0]), None, trained=True, by="val_loss")
    assert "nothing was compared" in sentence


def test_undecided_edges_are_named():
    sure, unsure = [0.8, 0.1, 0.1], [0.4, 0.35, 0.25]
    alpha = {v.name: sure if i else unsure for i, v in enumerate(SPACE.variables)}
    found = outcome([-1.0, -2.0], alpha=alpha)
    shares, undecided = confidence(found)
    first = SPACE.variables[0].name
    assert f"{first} 0.40 of 3" in shares
    assert undecided.endswith(f": {first}.")


def test_shared_weights_tell_their_lead():
    (sentence,) = confidence(outcome([0.5, 0.6]), by=SHARED_LOSS)
    assert "better than the second by 0.1000 nats" in sentence


def test_equal_losses_and_a_lonely_candidate_are_told_as_what_they_are():
    (tie,) = confidence(outcome([0.5, 0.50001]), by=SHARED_LOSS)
    assert "the first is not better than the second" in tie
    (alone,) = confidence(outcome([0.5]), by=SHARED_LOSS)
    assert "nothing was compared" in alone


def test_a_score_without_training_is_no_evidence_of_what_trained_networks_do():
    found = outcome([2.0, 1.0])
    found.history.metric = "grad_norm"
    (sentence,) = confidence(found, by="grad_norm")
    assert "Nothing was trained" in sentence
    assert "grad_norm" in sentence


def test_after_an_early_stop_the_probabilities_are_those_of_the_answer():
    def alpha(chance):
        return {v.name: [chance, 1 - chance, 0.0] for v in SPACE.variables}

    found = outcome([-1.0, -2.0])
    first, other = str(SPACE[0]), str(SPACE[1])
    found.history.evaluations[:] = [
        {"genotype": first, "alpha": alpha(0.9)},
        {"genotype": other, "alpha": alpha(0.4)},
        {"genotype": first, "alpha": alpha(0.2), "reason": f"{STOPPED_EARLY}: sharp"},
    ]
    assert "0.90 of 3" in confidence(found)[0]


def test_a_search_that_stopped_early_says_so_and_others_do_not():
    stopped = outcome([0.5], reason=f"{STOPPED_EARLY}: the loss has become sharp")
    others = outcome([0.5], reason=""), outcome([0.5], reason="training loss is not finite")
    (sentence,) = early_stops([*others, stopped], 9000)
    assert "stopped early: the loss has become sharp, after 0 of 9,000 samples" in sentence


def test_a_one_shot_search_that_diverged_says_so_and_a_trial_that_diverged_does_not():
    lost = {"diverged": True, "reason": "training loss is not finite"}
    diverged = outcome([-1.0], ranking=[], **lost)
    (sentence,) = early_stops([outcome([0.5], **lost), diverged], 9000)
    assert "diverged after 0 of 9,000 samples (training loss is not finite)" in sentence


@pytest.mark.parametrize(
    ("shown", "cut"), [(1, ["conv3", "conv5", "conv7"]), (2, ["conv5", "conv7"]), (3, ["conv7"])]
)
def test_convolutions_that_see_too_few_channels_are_named(shown, cut):
    (sentence,) = narrow_views([outcome([-1.0], shown_channels=shown)], SearchSpace.load("sase"))
    assert f"only {shown} channels" in sentence
    assert f"where {', '.join(cut)} can use {2 * shown - 1} taps" in sentence


def test_four_channels_are_enough_and_other_strategies_show_all():
    whole = outcome([-1.0], shown_channels=4), outcome([-1.0])
    assert not list(narrow_views(whole, SearchSpace.load("sase")))
