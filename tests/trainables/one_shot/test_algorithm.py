"""What all one-shot algorithms share."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sase_ray.strategies import SearchTask
from sase_ray.strategies.catalogue import make_strategy
from search_spaces.space import SearchSpace
from trainables.one_shot.algorithm import StepCost, best_by_sum
from trainables.one_shot.shared_weights import SharedWeights
from trainables.training.loop import Diverged, Evaluation

SIX = [f"set{i}" for i in range(6)]


def space_of(sizes):
    edges = list(SearchSpace.load("sase").edges)
    sets = {name: tuple(f"op{j}" for j in range(n)) for name, n in zip(SIX, sizes, strict=True)}
    return SearchSpace("made_up", sets, dict(zip(edges, SIX, strict=True)))


def brute_force(space, scores):
    every = product(
        *(
            list(zip(v.choices, row, strict=True))
            for v, row in zip(space.variables, scores, strict=True)
        )
    )
    sums = {tuple(op for op, _ in pairs): sum(score for _, score in pairs) for pairs in every}
    return sorted(sums.items(), key=lambda item: -item[1])


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_best_by_sum_equals_brute_force(data):
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=6, max_size=6))
    scores = [data.draw(st.lists(st.integers(-1000, 1000), min_size=n, max_size=n)) for n in sizes]
    count = data.draw(st.integers(1, 60))
    space = space_of(sizes)
    ranking = best_by_sum(space, scores, count)
    expected = brute_force(space, scores)
    assert [score for _, score in ranking] == [score for _, score in expected[:count]]
    totals = dict(expected)
    assert all(totals[genotype.ops] == score for genotype, score in ranking)
    assert len({genotype for genotype, _ in ranking}) == min(count, space.size)


def test_best_by_sum_of_log_probabilities_over_the_published_space():
    space = SearchSpace.load("sase")
    generator = torch.Generator().manual_seed(0)
    scores = [torch.randn(7, generator=generator).log_softmax(0).tolist() for _ in range(6)]
    ranking = best_by_sum(space, scores, 20)
    expected = brute_force(space, scores)[:20]
    assert [genotype.ops for genotype, _ in ranking] == [ops for ops, _ in expected]
    assert [score for _, score in ranking] == pytest.approx([score for _, score in expected])


def test_a_space_by_stage_is_ranked_over_all_its_stages():
    space = SearchSpace(
        "staged", {"a": ("x", "y")}, dict.fromkeys(SearchSpace.load("sase").edges, "a"), 2
    )
    scores = [[0.0, float(i + 1)] for i in range(12)]
    best, second, *_ = best_by_sum(space, scores, 5)
    assert best[0].ops == ("y",) * 12
    assert best[1] == sum(range(1, 13))
    assert second[0].ops == ("x", *("y",) * 11)


def samples_one_by_one(cost, batch_size, steps, total):
    return math.ceil(
        sum(
            batch_size * (1 if step < int(cost.warmup * total) else cost.passes)
            for step in range(steps)
        )
    )


passes = st.integers(1, 6) | st.just(Fraction(4, 3))
costs = st.builds(StepCost, passes=passes, warmup=st.floats(0, 0.99))


@settings(deadline=None, max_examples=200)
@given(cost=costs, batch_size=st.integers(1, 64), total=st.integers(0, 80), data=st.data())
def test_every_pass_of_a_step_is_paid_for(cost, batch_size, total, data):
    steps = data.draw(st.integers(0, total))
    assert cost.samples(batch_size, steps, total) == samples_one_by_one(
        cost, batch_size, steps, total
    )


@settings(deadline=None, max_examples=100)
@given(cost=costs, batch_size=st.integers(1, 64), budget=st.integers(0, 200))
def test_a_budget_pays_for_as_many_steps_as_fit(cost, batch_size, budget):
    fitting = [
        steps
        for steps in range(budget // batch_size + 2)
        if samples_one_by_one(cost, batch_size, steps, steps) <= budget
    ]
    assert cost.steps(batch_size, budget) == max(fitting)


def test_a_budget_of_millions_is_no_slower():
    cost = StepCost(passes=2, warmup=0.3)
    steps = cost.steps(64, 10**15)
    assert cost.samples(64, steps, steps) <= 10**15 < cost.samples(64, steps + 1, steps + 1)


def test_a_genotype_whose_loss_is_not_finite_is_scored_worst_and_the_others_as_they_are(make_job):
    """The search must not fail at its end by one of the genotypes that it is asked about."""

    class Judge(SharedWeights):
        def __init__(self):
            pass

        def evaluate_genotype(self, genotype, *, screening=False):
            index = space.index(genotype)
            if index == 1:
                raise Diverged("validation loss is not finite")
            return Evaluation({"loss": index / 10})

    space = make_job().space
    algorithm = make_strategy("rsws").algorithm(SearchTask(make_job(), 1000))
    scores = algorithm.score([space[0], space[1], space[2]], Judge())
    assert scores == [0.0, -math.inf, -0.2]
