"""Path dropout and single paths: frequencies against probabilities; the ranking at the end."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from scipy.stats import binom, chisquare


@pytest.mark.parametrize(("dropout", "operations"), [(0.1, 3), (0.5, 7), (0.01, 1)])
def test_the_rate_rises_linearly_to_the_papers(dropout, operations, start_algorithm):
    """r^(1/k) at the end, linear from zero (section 3.2)."""
    algorithm, _ = start_algorithm("one-shot", dropout=dropout)
    assert algorithm.drop_probability(operations) == 0
    for progress in (0.0, 0.25, 0.5, 1.0):
        algorithm.begin_step(progress)
        expected = progress * math.exp(math.log(dropout) / operations)
        assert algorithm.drop_probability(operations) == pytest.approx(expected)


def test_at_the_end_all_operations_of_an_edge_are_dropped_with_rate_r(start_algorithm):
    algorithm, _ = start_algorithm("one-shot", dropout=0.2)
    algorithm.begin_step(1.0)
    for operations in (1, 3, 7):
        assert algorithm.drop_probability(operations) ** operations == pytest.approx(0.2)


@pytest.mark.parametrize("progress", [0.5, 1.0])
def test_operations_are_kept_as_often_as_the_rate_says(progress, start_algorithm):
    algorithm, _ = start_algorithm("one-shot", dropout=0.3)
    algorithm.begin_step(progress)
    count, kept, operations = 1500, [0] * 18, 3
    sizes = []
    for _ in range(count):
        for edge, weights in enumerate(algorithm.mixture().edges):
            sizes.append(len(weights))
            assert sum(weights.values()) == pytest.approx(1)
            assert set(weights.values()) == {1 / len(weights)}
            for op in weights:
                kept[3 * edge + op] += 1
    rate = progress * 0.3 ** (1 / 3)
    # One is drawn evenly where all would have been dropped.
    chance = 1 - rate + rate**operations / operations
    error = math.sqrt(chance * (1 - chance) / count)
    assert all(k / count == pytest.approx(chance, abs=4.5 * error) for k in kept)
    none, *expected = (binom.pmf(n, operations, 1 - rate) for n in range(operations + 1))
    expected[0] += none
    observed = [sizes.count(n) for n in (1, 2, 3)]
    assert chisquare(observed, [len(sizes) * p for p in expected]).pvalue > 1e-3


def test_at_first_all_operations_are_averaged(start_algorithm):
    algorithm, _ = start_algorithm("one-shot")
    algorithm.begin_step(0.0)
    assert algorithm.mixture().edges == [dict.fromkeys(range(3), 1 / 3)] * 6


def test_every_edge_keeps_one_operation_at_the_highest_rate(start_algorithm):
    algorithm, _ = start_algorithm("one-shot", dropout=0.999)
    algorithm.begin_step(1.0)
    assert all(all(algorithm.mixture().edges) for _ in range(100))


def test_single_paths_are_uniform(start_algorithm):
    algorithm, _ = start_algorithm("rsws")
    counts, pairs, count = [0] * 18, [0] * 9, 900
    for _ in range(count):
        edges = algorithm.mixture().edges
        assert all(list(weights.values()) == [1.0] for weights in edges)
        chosen = [next(iter(weights)) for weights in edges]
        for edge, op in enumerate(chosen):
            counts[3 * edge + op] += 1
        pairs[3 * chosen[0] + chosen[1]] += 1
    assert chisquare(counts, [count / 3] * 18, ddof=5).pvalue > 1e-3
    assert chisquare(pairs).pvalue > 1e-3


@pytest.mark.parametrize("name", ["one-shot", "rsws"])
def test_all_images_train_the_weights(name, make_job, start_search):
    trainable = start_search(make_job(train=96), name, 1000, batch_size=16)
    assert sorted(trainable.train_batches._indices.tolist()) == list(range(96))


@pytest.mark.parametrize("name", ["one-shot", "rsws", "enas"])
def test_the_last_ranking_is_by_losses_with_shared_weights(name, make_job, run_search):
    trainable, results = run_search(make_job(), name, 1000, batch_size=16, reserve=0.6)
    last = results[-1]
    losses = [loss for _, loss in last["ranking"]]
    assert losses == sorted(losses)
    shared = trainable._shared_weights()
    for text, loss in last["ranking"][:3]:
        assert shared.evaluate_genotype(trainable.job.space.parse(text)).loss == loss
    assert last["genotype"] == last["ranking"][0][0]
    steps = trainable.algorithm.step_cost.samples(16, trainable.steps, trainable.total_steps)
    judged = last["samples"] - steps
    assert judged == len(losses) * shared.cost(), "60 images are one batch: all are judged alike"
    assert last["samples"] <= 1000 < last["samples"] + shared.cost() + 2 * 16
    assert len(losses) >= 600 // shared.cost()
    assert all(a["samples"] < b["samples"] for a, b in pairwise(results))


def test_a_reserve_that_pays_for_no_candidate_gives_one_unjudged(make_job, run_search):
    _, results = run_search(make_job(), "rsws", 100, batch_size=16)
    ((text, loss),) = results[-1]["ranking"]
    assert math.isnan(loss)
    assert results[-1]["genotype"] == text
    assert results[-1]["samples"] <= 100
