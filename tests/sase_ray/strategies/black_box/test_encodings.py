"""A space in the terms of Tune and of Optuna says the same as the space."""

from __future__ import annotations

import math

import optuna
import pytest
from optuna.samplers import RandomSampler, TPESampler

from sase_ray.strategies.black_box.encodings import optuna_search, to_distributions, to_param_space
from search_spaces.errors import UserError
from search_spaces.genotype import PUBLISHED, Genotype
from search_spaces.space import SearchSpace


@pytest.mark.parametrize("name", ["sase", "sase_tiny"])
def test_tune_and_optuna_are_given_every_choice_of_every_variable(name):
    space = SearchSpace.load(name)
    expected = {variable.name: list(variable.choices) for variable in space.variables}
    assert {k: list(d.categories) for k, d in to_param_space(space).items()} == expected
    assert {k: list(d.choices) for k, d in to_distributions(space).items()} == expected


def test_draws_of_both_are_genotypes_of_the_space():
    space = SearchSpace.load("sase_tiny")
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    drawn = set()
    for _ in range(50):
        config = {name: domain.sample() for name, domain in to_param_space(space).items()}
        assert space.from_config(config) in space
        params = study.ask(fixed_distributions=to_distributions(space)).params
        drawn.add(space.from_config(params))
    assert len(drawn) > 40


def searcher(space, warm_start=(), seed=0):
    search = optuna_search(RandomSampler(seed=seed), warm_start, space)
    search.set_search_properties("val_loss", "min", to_param_space(space))
    return search


def test_the_searcher_suggests_the_warm_start_first():
    space = SearchSpace.load("sase")
    first = [PUBLISHED, space[77]]
    search = searcher(space, first)
    drawn = [space.from_config(search.suggest(f"t{i}")) for i in range(4)]
    assert drawn[:2] == first
    assert drawn[2:] != first


def test_the_searchers_draws_follow_the_samplers_seed():
    space = SearchSpace.load("sase")

    def draws(seed):
        search = searcher(space, seed=seed)
        return [space.from_config(search.suggest(f"t{i}")) for i in range(5)]

    assert draws(0) == draws(0)
    assert draws(0) != draws(1)


def test_choices_by_stage_come_back_under_their_names():
    edges = SearchSpace.load("sase").edges
    space = SearchSpace("staged", {"a": ("x", "y")}, dict.fromkeys(edges, "a"), stages=2)
    genotype = space.from_config(searcher(space).suggest("t"))
    assert isinstance(genotype, Genotype)
    assert genotype.stages == 2


def test_a_warm_start_from_outside_the_space_is_refused():
    with pytest.raises(UserError, match="conv3x3_x2"):
        optuna_search(RandomSampler(), [PUBLISHED], SearchSpace.load("sase_tiny"))


def ended(epoch, loss, *, diverged=False):
    """The last result of a trial of three epochs."""
    return {
        "val_loss": loss,
        "epoch": epoch,
        "training_iteration": epoch,
        "finished": epoch == 3,
        "diverged": diverged,
    }


def searcher_of(space, seed=0):
    searcher = optuna_search(TPESampler(seed=seed, n_startup_trials=1), (), space)
    searcher.set_search_properties("val_loss", "min", to_param_space(space))
    return searcher


def test_only_losses_of_the_last_epoch_are_told_as_those_of_complete_trials():
    searcher = searcher_of(SearchSpace.load("sase_tiny"))
    results = [
        ended(3, 0.8),
        ended(1, 0.5),
        ended(2, 0.9),
        ended(2, math.inf, diverged=True),
        ended(3, math.inf, diverged=True),
    ]
    for index, result in enumerate(results):
        searcher.suggest(str(index))
        searcher.on_trial_complete(str(index), result)
    states = [(trial.state.name, trial.intermediate_values) for trial in searcher._ot_study.trials]
    assert states == [
        ("COMPLETE", {}),
        ("PRUNED", {1: 0.5}),
        ("PRUNED", {2: 0.9}),
        ("PRUNED", {}),
        ("PRUNED", {}),
    ]


def test_the_model_prefers_what_finished_well_to_what_had_a_smaller_loss_when_it_was_stopped():
    """Losses of the first epoch are smaller here than those of the last."""
    space = SearchSpace.load("sase_tiny")
    searcher = searcher_of(space)
    first = space.variables[0]
    good = first.choices[0]
    for index in range(60):
        config = searcher.suggest(str(index))
        finishes = config[first.name] == good
        searcher.on_trial_complete(str(index), ended(3, 1.0) if finishes else ended(1, 0.1))
    drawn = [searcher.suggest(f"more{index}")[first.name] for index in range(20)]
    assert drawn.count(good) > 12
