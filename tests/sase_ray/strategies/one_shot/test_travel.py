"""How far architecture parameters can move, and do, whatever the length of the search."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from trainables.one_shot.algorithm import distances, rate_of_travel

PAPERS = {
    # Rate times steps of alpha: epochs x images // batch x rate, from the papers' settings.
    "darts": 50 * (25_000 // 64 + 1) * 3e-4,
    "darts-2nd": 50 * (25_000 // 64 + 1) * 3e-4,
    "rf-darts": 50 * (25_000 // 64 + 1) * 3e-4,
    "pc-darts": 35 * (25_000 // 256) * 6e-4,
    "adarts": 35 * (25_000 // 256) * 6e-4,
    "fbnet": 80 * (100 * 1281 // 5 // 192) * 0.01,
    "prunet": 80 * (100 * 1281 // 5 // 192) * 0.01,
    "enas": 150 * 30 * 3.5e-3,
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_rate_times_the_steps_is_the_papers(name, start_algorithm):
    algorithm, _ = start_algorithm(name)
    short = 100 - int(algorithm.step_cost.warmup * 100)  # the trainer has a hundred
    rate = algorithm.optimizer.param_groups[0]["lr"]
    assert rate == pytest.approx(min(0.1, PAPERS[name] / short), rel=0.02)
    cost, travel = algorithm.step_cost, algorithm.settings.travel
    for steps in (2_000, 19_550):
        own = steps - int(cost.warmup * steps)
        rate = rate_of_travel(travel, SimpleNamespace(total_steps=steps), cost)
        assert rate * own == pytest.approx(PAPERS[name], rel=0.02)


@pytest.mark.parametrize(
    ("name", "option"), [("darts", "alpha_lr"), ("fbnet", "alpha_lr"), ("enas", "controller_lr")]
)
def test_a_rate_that_is_given_is_taken(name, option, start_algorithm):
    algorithm, _ = start_algorithm(name, **{option: 3e-4})
    assert algorithm.optimizer.param_groups[0]["lr"] == 3e-4


@pytest.mark.parametrize("name", ["darts", "enas"])
def test_the_distance_from_the_start_is_reported(name, start_algorithm):
    algorithm, (train, validation, *_) = start_algorithm(name)
    assert algorithm.report()["travel"] == algorithm.report()["travel_max"] == 0
    learned = (
        list(algorithm.controller.parameters()) if name == "enas" else list(algorithm.architecture)
    )
    before = [parameter.detach().clone() for parameter in learned]
    for _ in range(2):  # the first reward of enas is its own baseline
        algorithm.architecture_step(train, validation)
    moved = torch.cat(
        [(now - was).detach().abs().flatten() for now, was in zip(learned, before, strict=True)]
    )
    report = algorithm.report()
    assert report["travel"] == pytest.approx(float(moved.mean()), rel=1e-5)
    assert report["travel_max"] == pytest.approx(float(moved.max()), rel=1e-5)


def test_distances_of_numbers_done_by_hand():
    now = [torch.tensor([1.0, -2.0]), torch.tensor([0.5])]
    start = [torch.tensor([0.0, 1.0]), torch.tensor([0.5])]
    assert distances(now, start) == {"travel": pytest.approx(4 / 3), "travel_max": 3.0}


@pytest.mark.slow
def test_a_short_search_decides_and_at_the_papers_rate_it_does_not(make_job, run_search):
    options = {"budget": 2 * 16 * 60, "batch_size": 16}
    _, fixed = run_search(make_job(), "darts", alpha_lr=3e-4, **options)
    _, scaled = run_search(make_job(), "darts", **options)
    assert fixed[-1]["entropy"] > 0.999
    assert fixed[-1]["travel_max"] < 0.03
    assert scaled[-1]["entropy"] < 0.8
    assert 1 < scaled[-1]["travel_max"] < 7


def test_the_temperature_of_fbnet_falls_within_an_epoch(make_job, start_search):
    trainable = start_search(make_job(), "fbnet", 2000, batch_size=16, latency_power=0.0)
    seen = []
    begin_step = trainable.algorithm.begin_step

    def note(progress):
        begin_step(progress)
        seen.append(trainable.algorithm.temperature)

    trainable.algorithm.begin_step = note
    trainable.train()
    assert len(seen) == len(trainable.train_batches) > 1
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == len(seen)
