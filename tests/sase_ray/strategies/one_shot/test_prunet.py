"""PruNet: what it prunes when, and that pruned operations cost nothing."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.ops.kernels.mode import fused


def set_alpha(algorithm, rows):
    with torch.no_grad():
        for alpha, row in zip(algorithm.alpha, rows, strict=True):
            alpha.data = torch.tensor(row, dtype=alpha.dtype)


class Calls(TorchDispatchMode):
    """Counts calls of torch's kernels."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def cost(algorithm, images):
    """FLOPs and calls of kernels of a pass and of its gradient."""
    weights = list(algorithm.supernet.parameters())
    with FlopCounterMode(display=False) as flops, Calls() as calls:
        loss = algorithm.supernet(images, algorithm.mixture()).square().mean()
        torch.autograd.grad(loss, weights, allow_unused=True)
    return flops.get_total_flops(), calls.count


def seconds(algorithm, images):
    """The least of a few measured passes."""

    def once():
        started = time.perf_counter()
        algorithm.supernet(images, algorithm.mixture()).square().mean().backward()
        return time.perf_counter() - started

    return min(once() for _ in range(6))


def test_operations_below_their_share_of_an_even_chance_are_pruned(start_algorithm):
    algorithm, _ = start_algorithm("prunet", threshold=0.5, warmup=0.0)
    # Chances 0.6, 0.3, 0.1, and the limit is 0.5 / 3.
    set_alpha(algorithm, [[math.log(p) for p in (0.6, 0.3, 0.1)]] * 6)
    algorithm.begin_step(0.1)
    assert algorithm.left == [[0, 1]] * 6
    # Among those left 2/3 and 1/3, and the limit is 0.5 / 2.
    algorithm.begin_step(0.2)
    assert algorithm.left == [[0, 1]] * 6
    set_alpha(algorithm, [[math.log(p) for p in (0.2, 0.79, 5.0)]] * 6)
    algorithm.begin_step(0.3)
    assert algorithm.left == [[1]] * 6, "what was pruned does not come back"


def test_nothing_is_pruned_in_the_warm_up_or_without_a_threshold(start_algorithm):
    for options, progress in [({"warmup": 0.5}, 0.5), ({"warmup": 0.0, "threshold": 0.0}, 0.9)]:
        algorithm, _ = start_algorithm("prunet", **options)
        set_alpha(algorithm, [[9.0, 0.0, -9.0]] * 6)
        algorithm.begin_step(progress)
        assert algorithm.left == [[0, 1, 2]] * 6


@pytest.mark.parametrize("threshold", [0.5, 0.999])
def test_the_last_operation_always_stays(threshold, start_algorithm):
    algorithm, _ = start_algorithm("prunet", threshold=threshold, warmup=0.0)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(1, 30):
        set_alpha(algorithm, (9 * torch.randn(6, 3, generator=generator)).tolist())
        algorithm.begin_step(epoch / 30)
        assert all(algorithm.left)
    assert algorithm.left != [[0, 1, 2]] * 6
    set_alpha(algorithm, [[0.0, 0.0, 0.0]] * 6)
    algorithm.begin_step(1.0)
    assert all(algorithm.left)


def test_pruned_operations_cost_nothing(start_algorithm):
    algorithm, (_, validation, *_) = start_algorithm("prunet", warmup=0.0)
    images = validation[0]
    # The dear ones go: cov, fc and the convolution of 7 x 7.
    dear = {"cov", "fc", "conv7x7", "gap_std", "pnorm", "conv3", "conv3x3"}
    before, before_seconds = cost(algorithm, images), seconds(algorithm, images)
    chances = [
        [-9.0 if op in dear else 0.0 for op in variable.choices]
        for variable in algorithm.space.variables
    ]
    set_alpha(algorithm, chances)
    algorithm.begin_step(0.5)
    assert sum(map(len, algorithm.left)) < 12
    after, after_seconds = cost(algorithm, images), seconds(algorithm, images)
    assert after[0] < before[0]
    assert after[1] < 0.8 * before[1]
    assert after_seconds < 0.9 * before_seconds


def test_with_one_operation_left_the_cost_is_that_of_the_network_alone(start_algorithm):
    algorithm, (_, validation, *_) = start_algorithm("prunet", warmup=0.0)
    images = validation[0]
    set_alpha(algorithm, [[9.0, 0.0, -9.0]] * 6)
    algorithm.begin_step(0.5)
    genotype = algorithm.ranking(1)[0][0]
    network = algorithm.supernet.extract(genotype)
    with FlopCounterMode(display=False) as ours:
        algorithm.supernet(images, algorithm.mixture())
    with FlopCounterMode(display=False) as alone, fused():
        network(images)
    assert ours.get_total_flops() == alone.get_total_flops()


def test_a_pruned_operation_is_not_called(start_algorithm):
    algorithm, (train, validation, *_) = start_algorithm("prunet", warmup=0.0)
    block = algorithm.supernet.blocks()[0][1]
    called = []
    for edge, operations in block.edges.items():
        for index, operation in enumerate(operations):
            operation.register_forward_hook(lambda *_, key=(edge, index): called.append(key))
    set_alpha(algorithm, [[9.0, -9.0, -9.0]] * 6)
    algorithm.begin_step(0.5)
    algorithm.architecture_step(train, validation)
    algorithm.trainer.step(train)
    algorithm.supernet(validation[0], algorithm.central_mixture())
    assert {index for _, index in called} <= {0}


def test_the_expected_latency_is_that_of_what_is_left(start_algorithm):
    algorithm, _ = start_algorithm("prunet", warmup=0.0)
    set_alpha(algorithm, [[9.0, -9.0, -9.0]] * 6)
    algorithm.begin_step(0.5)
    genotype = algorithm.ranking(1)[0][0]
    expected = algorithm.latency.expected(algorithm.mixture(), algorithm.space)
    assert expected.item() == pytest.approx(
        algorithm.latency.of(genotype, algorithm.space), rel=1e-6
    )


def test_no_genotype_with_a_pruned_operation_is_ranked_before_one_without(start_algorithm):
    algorithm, _ = start_algorithm("prunet", warmup=0.0)
    set_alpha(algorithm, [[2.0, 1.9, -3.0]] * 6)
    algorithm.begin_step(0.5)
    assert algorithm.left == [[0, 1]] * 6
    # Alpha of what was pruned may still drift; it must not matter.
    set_alpha(algorithm, [[0.0, -5.0, 9.0]] * 6)
    pruned = {variable.choices[2] for variable in algorithm.space.variables}
    ranking = algorithm.ranking(100)
    flags = [any(op in pruned for op in genotype.ops) for genotype, _ in ranking]
    assert flags == [False] * 2**6 + [True] * 36
    scores = algorithm.score([genotype for genotype, _ in ranking], None)
    np.testing.assert_allclose(scores, [score for _, score in ranking])


def test_the_report_is_of_what_is_left(start_algorithm):
    algorithm, _ = start_algorithm("prunet", warmup=0.0)
    set_alpha(algorithm, [[math.log(p) for p in (0.6, 0.3, 0.1)]] * 6)
    algorithm.begin_step(0.5)
    report = algorithm.report()
    assert report["operations_left"] == 12
    for row in report["alpha"].values():
        assert row == pytest.approx([2 / 3, 1 / 3, 0.0])


def test_a_search_prunes_and_ends_among_what_is_left(make_job, run_search):
    trainable, results = run_search(
        make_job(), "prunet", 1000, batch_size=16, alpha_lr=0.2, threshold=0.9
    )
    left = [result["operations_left"] for result in results]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 18
    names = zip(trainable.job.space.variables, trainable.algorithm.left, strict=True)
    allowed = [{variable.choices[op] for op in ops} for variable, ops in names]
    ops = trainable.job.space.parse(results[-1]["genotype"]).ops
    assert all(op in row for op, row in zip(ops, allowed, strict=True))
