"""What every one-shot strategy owes: bit-for-bit resumes, the budget, clear refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from sase_ray.strategies import OneShot, SearchTask
from sase_ray.strategies.catalogue import make_strategy, strategies
from search_spaces.errors import UserError
from search_spaces.mixture import Mixture
from search_spaces.space import SearchSpace
from trainables.one_shot import trainable as supernet_module
from trainables.training.cuda_graphs import GraphedNetwork

ONE_SHOT = [name for name, strategy in strategies().items() if issubclass(strategy, OneShot)]
OPTIONS = {
    "batch_size": 16,
    "alpha_lr": 0.1,
    "warmup": 0.2,
    "parts": 2,
    "threshold": 0.9,
    "reserve": 0.4,
    "controller_lr": 0.05,
}


def options_of(name, **more):
    """Options that show what a strategy does in few steps, as far as it has them."""
    fields = strategies()[name].model_fields
    return {key: value for key, value in {**OPTIONS, **more}.items() if key in fields}


@pytest.fixture
def small_job(make_job, write_space):
    choices = {
        "channel_squeeze": ["gap", "gap_gmp"],
        "refine_excite": ["affine", "conv3"],
        "spatial_excite": ["conv3x3", "affine"],
    }
    space = SearchSpace.load(write_space(choices))
    return lambda **options: make_job(space, **options)


def told(result):
    """What a search told, without times, as text: not a number equals itself."""
    own = ("epoch", "train_loss", "val_loss", "alpha", "ranking", "samples", "genotype", "scores")
    signs = ("entropy", "poor_share", "dominant_eigenvalue", "discretisation_gap")
    return {key: repr(result.get(key)) for key in (*own, *signs)}


def everything(trainable):
    state = trainable.state()
    del state["train_seconds"]
    return state | {"looks": repr(state["looks"])}


def test_the_catalogue_has_them_all():
    assert set(ONE_SHOT) >= {
        *("darts", "darts-2nd", "pc-darts", "rf-darts", "rf-pc-darts", "adarts"),
        *("fbnet", "prunet", "enas", "one-shot", "rsws"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_SHOT)
def test_a_resumed_search_goes_on_bit_for_bit(
    name, small_job, run_search, start_search, tmp_path, assert_same
):
    job, budget = small_job(), 16 * (50 if name == "darts-2nd" else 36)
    undisturbed, results = run_search(job, name, budget, **options_of(name))
    expected = [told(result) for result in results]
    assert len(expected) >= 3

    interrupted = start_search(job, name, budget, **options_of(name))
    interrupted.train()
    interrupted.train()
    interrupted.save_checkpoint(str(tmp_path))
    interrupted.train()
    torch.manual_seed(5)
    fresh = start_search(job, name, budget, **options_of(name))
    fresh.load_checkpoint(str(tmp_path))
    rest = [fresh.train()]
    while not rest[-1]["done"]:
        rest.append(fresh.train())
    assert_same([told(result) for result in rest], expected[2:])
    assert_same(everything(fresh), everything(undisturbed))


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_SHOT)
def test_cuda_graphs_change_nothing_but_speed(
    name, small_job, run_search, monkeypatch, pretended_graphs
):
    """Their memory is written over by each pass: no strategy may keep what lies there."""
    job, budget = small_job(), 16 * (50 if name == "darts-2nd" else 36)
    expected, results = run_search(job, name, budget, **options_of(name))
    monkeypatch.setattr(supernet_module, "as_graphs", lambda network, *_: GraphedNetwork(network))
    found, again = run_search(job, name, budget, **options_of(name))
    # But for the order in which a latency's gradient is added to that of the network.
    for one, other in zip(again, results, strict=True):
        for key in ("train_loss", "val_loss", "val_accuracy"):
            assert one[key] == pytest.approx(other[key], rel=1e-4)
    for key, weight in expected.supernet.state_dict().items():
        torch.testing.assert_close(found.supernet.state_dict()[key], weight, rtol=1e-3, atol=1e-5)
    assert bool(pretended_graphs) == (name not in {"enas", "one-shot", "rsws"})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ONE_SHOT)
def test_a_search_runs_and_resumes_on_a_gpu(
    name, small_job, run_search, start_search, tmp_path, monkeypatch
):
    job, budget = small_job(), 16 * (50 if name == "darts-2nd" else 36)
    job = replace(job, genotypes_to_score=tuple(job.space)[:3])
    whole, results = run_search(job, name, budget, **options_of(name))
    assert next(whole.supernet.parameters()).is_cuda
    assert results[-1]["finished"]
    assert all(math.isfinite(score) for score in results[-1]["scores"])

    begun = start_search(job, name, budget, **options_of(name))
    begun.train()
    begun.save_checkpoint(str(tmp_path))
    fresh = start_search(job, name, budget, **options_of(name))
    fresh.load_checkpoint(str(tmp_path))
    while not (result := fresh.train())["done"]:
        assert not result["diverged"]
    assert result["samples"] == results[-1]["samples"]


@pytest.mark.slow
@pytest.mark.parametrize("budget", [250, 999])
@pytest.mark.parametrize("name", ONE_SHOT)
def test_the_budget_is_used_and_never_exceeded(name, budget, small_job, start_search, monkeypatch):
    monkeypatch.setattr(supernet_module, "INSPECTIONS", 0)
    trainable = start_search(small_job(), name, budget, **options_of(name))
    algorithm, seen = trainable.algorithm, []

    def counted(owner, method, count):
        inner = getattr(owner, method)
        setattr(owner, method, lambda *args: (seen.append(count(*args)), inner(*args))[1])

    counted(trainable.trainer, "loss", lambda batch: len(batch[1]))
    if name == "enas":
        counted(algorithm, "reward", lambda chosen, batch: Fraction(len(batch[1]), 3))
    judges = []
    conclude = algorithm.conclude
    algorithm.conclude = lambda count, shared: (judges.append(shared), conclude(count, shared))[1]
    results = [trainable.train()]
    while not results[-1]["done"]:
        results.append(trainable.train())
    judged = judges[0].samples
    assert len(judges) == 1
    assert math.ceil(sum(seen)) + judged == results[-1]["samples"] <= budget
    assert results[-1]["finished"]
    one_step = algorithm.step_cost.passes * 16
    if algorithm.reserve:
        left = budget - results[-1]["samples"]
        # Or every genotype of the space that was proposed has been judged.
        none_left = judged == len(results[-1]["ranking"]) * judges[0].cost()
        assert left < judges[0].cost() + one_step or none_left
    else:
        assert budget - results[-1]["samples"] < one_step


@pytest.mark.parametrize("train", [40, 96])
@pytest.mark.parametrize("name", ONE_SHOT)
def test_the_smallest_budget_that_is_accepted_pays_for_a_step(name, train, small_job, start_search):
    """Also where there are fewer images than the strategy's batch has."""
    job = small_job(train=train)
    options = options_of(name, batch_size=64, reserve=0.9)
    strategy = make_strategy(name, options)
    with pytest.raises(UserError, match="one step of the search sees") as refusal:
        strategy.check(SearchTask(job, 1))
    needed = int(str(refusal.value).split()[-2].replace(",", ""))
    strategy.check(SearchTask(job, needed))
    with pytest.raises(UserError, match=f"{needed}"):
        strategy.check(SearchTask(job, needed - 1))
    trainable = start_search(job, name, needed, **options)
    assert trainable.total_steps == 1


def numeric_fields(name):
    fields = strategies()[name].model_fields.items()
    return [key for key, f in fields if isinstance(f.default, int | float | tuple)]


@pytest.mark.parametrize("name", ONE_SHOT)
def test_options_out_of_range_are_named(name):
    assert len(numeric_fields(name)) > 5
    for field in numeric_fields(name):
        default = strategies()[name].model_fields[field].default
        for wrong in (-1, float("nan"), "much"):
            value = (wrong, wrong) if isinstance(default, tuple) else wrong
            with pytest.raises(UserError, match=field):
                make_strategy(name, {field: value})
    with pytest.raises(UserError, match="no_such_option"):
        make_strategy(name, {"no_such_option": 1})


@pytest.mark.parametrize("name", ["enas", "one-shot", "rsws"])
def test_a_search_without_alpha_does_not_pretend_to_stop_by_it(name):
    with pytest.raises(UserError, match="stop_when_sharp"):
        make_strategy(name, {"stop_when_sharp": True})


@pytest.mark.parametrize("name", ONE_SHOT)
def test_rates_that_contradict_each_other_are_named(name):
    with pytest.raises(UserError, match="lr_min"):
        make_strategy(name, {"lr": 1e-4, "lr_min": 1e-3})


@pytest.mark.parametrize("name", ONE_SHOT)
def test_the_pickled_algorithm_is_settings_alone(name, small_job, latency_of):
    """It travels to a worker before it is started."""
    job = small_job()
    algorithm = make_strategy(name).algorithm(SearchTask(job, 10_000))
    assert not any(isinstance(value, torch.Tensor) for value in vars(algorithm).values())


@pytest.mark.parametrize("name", ONE_SHOT)
def test_a_search_judges_what_it_is_asked_about(name, small_job, run_search, monkeypatch):
    monkeypatch.setattr(supernet_module, "INSPECTIONS", 0)
    job = small_job()
    listed = tuple(job.space)[:4]
    _, results = run_search(replace(job, genotypes_to_score=listed), name, 250, **options_of(name))
    scores = results[-1]["scores"]
    assert len(scores) == 4
    assert all(isinstance(score, float) for score in scores)
    assert len(set(scores)) > 1
    assert not any("scores" in result for result in results[:-1])


@pytest.mark.parametrize("name", ONE_SHOT)
def test_a_mixture_covers_every_edge(name, small_job, start_search):
    trainable = start_search(small_job(), name, 250, **options_of(name))
    trainable.algorithm.begin_step(0.0)
    for mixture in (trainable.algorithm.mixture(), trainable.algorithm.central_mixture()):
        assert isinstance(mixture, Mixture)
        assert len(mixture.edges) == 6
        for weights in mixture.edges:
            values = weights.values() if isinstance(weights, dict) else weights
            assert sum(torch.as_tensor(w).item() for w in values) == pytest.approx(1, abs=1e-5)
