"""Searches on a table: the same steps as under Ray Tune, and the closed form of random search."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from ray import tune

from sase_ray.commands.compare_on_table import search_table
from sase_ray.execution.one_search import run_search
from sase_ray.execution.simulation import simulate_search, table_task
from sase_ray.strategies import BlackBox
from sase_ray.strategies.catalogue import make_strategy, strategies
from search_spaces.errors import UserError

BLACK_BOX = [name for name, strategy in strategies().items() if issubclass(strategy, BlackBox)]


class LookedUp(tune.Trainable):
    """A trial of Ray Tune that reads the table."""

    def setup(self, config, table=None):
        self.table = table
        self.reset_config(config)

    def reset_config(self, new_config):
        self.genotype = self.table.space.from_config(new_config)
        self.epoch = 0
        return True

    def step(self):
        self.epoch += 1
        entry = self.table.lookup(self.genotype, self.epoch)
        return {
            "genotype": str(self.genotype),
            "epoch": self.epoch,
            "samples": entry.samples,
            "train_seconds": entry.seconds,
            "val_loss": entry.val_loss,
            "val_accuracy": entry.val_accuracy,
            "diverged": False,
            "reason": "",
            "finished": self.epoch == 3,
            tune.result.DONE: self.epoch == 3,
        }

    def save_checkpoint(self, checkpoint_dir):
        raise AssertionError("a trial that is saved before it ends begins the next one too late")

    def load_checkpoint(self, checkpoint):
        pass


@pytest.mark.ray
@pytest.mark.parametrize(
    "name",
    [
        name if name in {"random", "tpe-asha"} else pytest.param(name, marks=pytest.mark.full)
        for name in BLACK_BOX
    ],
)
def test_a_search_takes_the_same_steps_as_under_ray_tune(
    name, made_up_table, ray_cluster, tmp_path
) -> None:
    task = table_task(made_up_table, seed=3, budget=2500, metric="val_loss")
    strategy = make_strategy(name)

    class OnTable(type(strategy)):
        def plan(self, task):
            from dataclasses import replace

            plan = super().plan(task)
            return replace(
                plan, trainable=LookedUp, parameters={"table": made_up_table}, samples_before=50
            )

        def wants_host(self, task):
            return False

    tuned = run_search(OnTable(), task, storage=tmp_path, concurrency=1).history
    simulated = simulate_search(strategy, task, made_up_table.lookup)

    def steps(history):
        keys = ("genotype", "epoch", "val_loss", "search_samples", "incumbent")
        return [tuple(row[key] for key in keys) for row in history.evaluations]

    assert len(steps(simulated)) > 10
    assert steps(simulated) == steps(tuned)


@pytest.mark.slow
@pytest.mark.parametrize("trials", [1, 5, 25])
def test_random_search_has_the_regret_of_drawing_without_replacement(trials, made_up_table) -> None:
    # P(the best of n draws has rank k of N) = C(N - k, n - 1) / C(N, n).
    texts = sorted(made_up_table.genotypes, key=lambda g: made_up_table.lookup(g).val_loss)
    size = len(texts)
    regrets = np.array([made_up_table.regret(text) for text in texts])
    chances = [comb(size - k, trials - 1) / comb(size, trials) for k in range(1, size + 1)]
    expected = float(np.dot(chances, regrets))
    spread = float(np.dot(chances, (regrets - expected) ** 2)) ** 0.5
    strategy = make_strategy("random")
    searches = 150
    found = [
        search_table(strategy, made_up_table, seed, 50 + 300 * trials, noise=False)[-1]
        for seed in range(searches)
    ]
    assert {row["trials"] for row in found} == {trials}
    mean = float(np.mean([row["regret"] for row in found]))
    assert mean == pytest.approx(expected, abs=4 * spread / searches**0.5)


def test_random_search_and_grid_end_with_the_whole_space_and_the_best(made_up_table) -> None:
    for name in ("random", "grid"):
        end = search_table(make_strategy(name), made_up_table, 0, 10**7, noise=False)[-1]
        assert end["trials"] == 729
        assert end["genotype"] == made_up_table.best()


@pytest.mark.parametrize("name", BLACK_BOX)
@pytest.mark.parametrize("workers", [1, 4])
def test_a_search_sees_no_more_than_it_paid_for(name, workers, made_up_table) -> None:
    seen: list[int] = []

    def lookup(genotype, epoch):
        seen.append(epoch)
        entry = made_up_table.lookup(genotype, epoch)
        assert not hasattr(entry, "test_loss")
        return entry

    budget = 2222
    task = table_task(made_up_table, seed=1, budget=budget, metric="val_loss")
    history = simulate_search(make_strategy(name), task, lookup, workers=workers)
    # An epoch is looked at when its trial begins it, and only then: 100 samples each.
    assert 50 + 100 * len(seen) == history.samples <= budget
    assert len(seen) == len(history.evaluations)
    assert seen.count(1) == len(history.trials())
    assert not any("test" in key for row in history.evaluations for key in row)


def test_asha_stops_the_worse_trials_on_a_table_too(made_up_table) -> None:
    task = table_task(made_up_table, seed=0, budget=20_000, metric="val_loss")
    trials = simulate_search(make_strategy("asha"), task, made_up_table.lookup).trials()
    stopped = [t["val_loss"] for t in trials if t["epoch"] == 1]
    finished = [t["val_loss"] for t in trials if t["status"] == "finished"]
    assert len(stopped) > len(finished) > 5
    first = {t["trial"]: made_up_table.lookup(t["genotype"], 1).val_loss for t in trials}
    done = [first[t["trial"]] for t in trials if t["status"] == "finished"]
    assert np.mean(done) < np.mean(stopped)


def test_a_lost_training_ends_its_trial_and_is_ranked_last(make_table) -> None:
    table = make_table(diverged=[g for i, g in enumerate(make_table().genotypes) if i % 2])
    task = table_task(table, seed=0, budget=6000, metric="val_loss")
    history = simulate_search(make_strategy("random"), task, table.lookup)
    lost = [t for t in history.trials() if t["status"] == "diverged"]
    assert lost
    assert all(t["epoch"] == 2 for t in lost)
    ranked = [str(genotype) for genotype, _ in history.ranked_trials()]
    assert ranked[-1] in {t["genotype"] for t in lost}


def test_a_budget_below_one_trial_is_refused(made_up_table) -> None:
    task = table_task(made_up_table, seed=0, budget=349, metric="val_loss")
    with pytest.raises(UserError, match="sees 350 samples"):
        simulate_search(make_strategy("random"), task, made_up_table.lookup)
