"""What cannot be resumed is refused in a sentence, before anything is started."""

from __future__ import annotations

import pytest
import yaml

from sase_ray.commands.resume import resume
from sase_ray.config import load_config
from sase_ray.execution.experiment import Experiment
from search_spaces.errors import UserError
from trainables.persistence.store import Store


@pytest.fixture
def recorded(tiny):
    """What a run writes into its config.yaml."""
    config = load_config(tiny)
    splits = Experiment.of(config).problem.search_data.splits
    return {
        "config": config.model_dump(mode="json"),
        "run": {"kind": "compare", "splits": splits, "trials_at_once": 1},
        "versions": {"python": "3.11"},
    }


@pytest.fixture
def run(recorded, tmp_path):
    """Write a run under way: ``run(changes)``."""

    def write(under_way=True, **changes):
        content = {**recorded, **changes}
        Store(tmp_path / "run").write("config.yaml", yaml.safe_dump(content).encode())
        if under_way:
            Store(tmp_path / "run").write("state/under-way", b"")
        return tmp_path / "run"

    return write


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"there is no run in .*nowhere"):
        resume(tmp_path / "nowhere")
    with pytest.raises(UserError, match="storage 'ftq://x' cannot be used"):
        resume("ftq://x")


@pytest.mark.parametrize("part", ["config", "run", "versions"])
@pytest.mark.parametrize("value", [None, 5, "text", [1], {}])
def test_a_configuration_that_no_run_has_written(part, value, run):
    if (part, value) == ("versions", {}) or (part, value) == ("config", {}):
        return  # nothing is missing: defaults, and no versions to compare
    with pytest.raises(UserError):
        resume(run(**{part: value}))


@pytest.mark.parametrize(
    "about", [{"kind": "dance"}, {"trials_at_once": 0}, {"splits": 3}, {"genotypes": 3}]
)
def test_a_run_that_is_of_no_known_kind(about, run, recorded):
    with pytest.raises(UserError, match="not written by a run that can be resumed"):
        resume(run(run={**recorded["run"], **about}))


def test_a_run_that_has_ended(run):
    with pytest.raises(UserError, match="has ended: there is nothing to resume"):
        resume(run(under_way=False))


def test_a_relative_path_that_leads_nowhere_from_here(run, recorded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    elsewhere = run(config={**recorded["config"], "space": "mine/space.yaml"})
    with pytest.raises(UserError, match=r"mine/space.yaml.*\(relative to the folder that the run"):
        resume(elsewhere)
    with pytest.raises(UserError, match="dart") as refused:
        resume(run(config={**recorded["config"], "strategies": ["dart"]}))
    assert "relative" not in str(refused.value)


def test_a_run_on_other_images(run, recorded):
    with pytest.raises(UserError, match="'digits' are not those that the run was begun with"):
        resume(run(run={**recorded["run"], "splits": {"train": "other"}}))


@pytest.mark.slow
def test_a_study_of_genotypes_that_the_space_has_not(run, recorded):
    with pytest.raises(UserError, match="gap"):
        resume(run(run={**recorded["run"], "kind": "reliability", "genotypes": ["gap-gap"]}))
