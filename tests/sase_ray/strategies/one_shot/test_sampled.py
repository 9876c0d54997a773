"""Searches by shared weights answer only with what they have judged."""

from __future__ import annotations

import math

import pytest

from sase_ray.results.history import History
from sase_ray.strategies import SearchTask
from sase_ray.strategies.catalogue import make_strategy
from search_spaces.errors import UserError

FIRST, SECOND = "gap-conv3-affine-gap-pnorm-conv3x3", "cov-fc-affine-gap-gap-affine"


def history(*rows):
    """A history of epochs, each with its ranking, the last perhaps diverged."""
    found = History("val_loss", "min")
    for epoch, (ranking, diverged) in enumerate(rows, start=1):
        found.add(
            "00000",
            {
                "genotype": ranking[0][0],
                "epoch": epoch,
                "samples": 100 * epoch,
                "train_seconds": float(epoch),
                "val_loss": math.inf if diverged else 1.0,
                "val_accuracy": 0.5,
                "diverged": diverged,
                "reason": "training loss is not finite" if diverged else "",
                "ranking": ranking,
            },
        )
    return found


UNJUDGED = [[FIRST, math.nan]]


@pytest.mark.parametrize("name", ["rsws", "one-shot", "enas"])
@pytest.mark.parametrize("ranking", [UNJUDGED, [[FIRST, -5.0], [SECOND, -6.0]]])
def test_a_search_that_diverged_has_no_answer(name, ranking, make_job):
    """Neither a genotype that nobody judged, nor a log-probability called a loss."""
    lost = history((ranking, False), (ranking, True))
    with pytest.raises(UserError, match="diverged before it ranked candidates: training loss"):
        make_strategy(name).conclude(lost, None)


def test_a_search_of_which_every_candidate_diverged_has_no_answer():
    with pytest.raises(UserError, match="no candidate has a finite loss"):
        make_strategy("rsws").conclude(
            history((UNJUDGED, False), ([[FIRST, math.inf]], False)), None
        )


def test_a_search_that_ended_answers_with_what_it_judged_best():
    ended = history((UNJUDGED, False), ([[SECOND, 0.5], [FIRST, math.inf]], False))
    ranking = make_strategy("enas").conclude(ended, None)
    assert [(str(genotype), loss) for genotype, loss in ranking] == [
        (SECOND, 0.5),
        (FIRST, math.inf),
    ]


def test_a_budget_that_does_not_pay_for_one_judgement_is_refused(make_job):
    # 60 validation images and four batches of 16, at a third, out of a fifth of the budget.
    strategy, job = make_strategy("rsws", {"batch_size": 16, "reserve": 0.2}), make_job()
    strategy.check(SearchTask(job, 5 * 42))
    with pytest.raises(UserError, match=r"209 is too small.* 210 samples"):
        strategy.check(SearchTask(job, 5 * 42 - 1))
