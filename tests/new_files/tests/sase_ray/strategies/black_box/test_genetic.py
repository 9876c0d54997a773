"""The genetic algorithm finds what random draws hardly find."""

from __future__ import annotations

from sase_ray.strategies import SearchTask
from sase_ray.strategies.catalogue import make_strategy


def test_later_generations_are_better(make_job) -> None:
    task = SearchTask(make_job(), 10_000)
    plan = make_strategy("genetic", {"population": 10}).plan(task)
    plan.searcher.set_search_properties("val_loss", "min", dict(plan.param_space))
    first = {variable.name: variable.choices[0] for variable in task.job.space.variables}
    losses = []
    for number in range(120):
        config = plan.searcher.suggest(str(number))
        losses.append(sum(config[name] != choice for name, choice in first.items()))
        result = {"val_loss": losses[-1], "diverged": False, "finished": True, "epoch": 2}
        plan.searcher.on_trial_complete(str(number), result)
    assert sum(losses[-30:]) < 0.6 * sum(losses[:30])
