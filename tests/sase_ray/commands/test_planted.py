"""Comparisons on planted modules: run to the end, resumed, and mistakes in what is asked for."""

from __future__ import annotations

import itertools
import re
import shlex

import pandas as pd
import pytest

from sase_ray import compare, load_run
from sase_ray.commands import compare as command
from sase_ray.commands.reliability import measure_reliability, run_study, study_of
from sase_ray.commands.resume import resume
from sase_ray.commands.search import search
from sase_ray.commands.tabulate import tabulate
from sase_ray.config import load_config
from sase_ray.execution.experiment import Experiment
from sase_ray.report.recovery_section import recovery_parts
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace


@pytest.fixture
def settings(tiny):
    return {
        **tiny,
        "host": {"epochs": 3, "batch_size": 32, "label_smoothing": 0.1},
        "planted": {"share": 0},
        "strategies": ["random", "darts"],
        "strategy_options": {"darts": {"batch_size": 16}},
        "baselines": ["none"],
        "seeds": 2,
    }


@pytest.mark.ray
@pytest.mark.slow
def test_a_comparison_on_plants_tells_what_was_recovered(ray_cluster, settings):
    whole = compare(**settings, run="whole")
    assert not whole.failures
    assert set(whole.table["name"]) == {"random", "darts", "none", "planted"}
    run = load_run(whole.folder)
    recovery = run.recovery.set_index(["strategy", "seed"])
    assert len(recovery) == 4
    plants = run.final[run.final["name"] == "planted"].set_index("seed")["module"]
    errors = run.final.groupby(["name", "seed"])["test_normalised_error"].mean()
    for (strategy, seed), row in recovery.iterrows():
        assert row["plant"] == plants[seed]
        same = [a == b for a, b in zip(*(row[k].split("-") for k in ("genotype", "plant")))]  # noqa: B905
        assert row["recovered"] == sum(same)
        excess = errors[strategy, seed] - errors["planted", seed]
        assert row["excess"] == pytest.approx(excess)
    assert plants[0] != plants[1]
    told = " ".join(whole.reading)
    assert "blind guessing gives 2.00" in told
    assert "Planted modules: 2, without calibration" in told
    assert len(list(recovery_parts(run))) > 3


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.full
def test_an_interrupted_comparison_on_plants_resumes_and_its_study_finds_the_same(
    ray_cluster, settings, monkeypatch
):
    whole = compare(**settings, run="whole")
    _check_recommended_study(whole, load_run(whole.folder))

    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command._Run, "train_finals", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compare(**settings, run="halted")
    folder = whole.folder.parent / "halted"
    resume(folder)
    columns = ["strategy", "seed", "plant", "genotype", "rank", "error", "plant_error"]
    first, second = (
        pd.read_parquet(f / "recovery.parquet")[columns] for f in (whole.folder, folder)
    )
    pd.testing.assert_frame_equal(first, second)


def _check_recommended_study(whole, run):
    """The command that the reading recommends measures the plant of the first search seed."""
    command = re.search("`(sase-ray reliability --final[^`]*)`", " ".join(whole.reading))[1]
    words = shlex.split(command)
    options = dict(itertools.pairwise(words))
    config = load_config(options["--config"], {"run": options["--run"]}, [options["--set"]])
    answer = run.final[(run.final["name"] == "random") & (run.final["seed"] == 0)].iloc[0]
    genotypes = [answer["module"], *list(map(str, SearchSpace.load("sase_tiny")))[:3]]
    report = run_study(study_of(config, genotypes, 2), int(options["--final"]))
    assert set(report.validity["final_metric"]) == set(config.make_task().reported("test"))
    finals = pd.read_parquet(report.folder / "final_trainings.parquet")
    again = finals[(finals["genotype"] == answer["module"]) & (finals["seed"] == 0)].iloc[0]
    for name in config.make_task().reported("test"):
        assert again[name] == pytest.approx(answer[name], rel=1e-4), "another plant, or none"


@pytest.mark.ray
def test_a_single_search_tells_what_it_recovered(ray_cluster, settings):
    report = search("random", {**settings, "strategy_options": {}})
    row = load_run(report.folder).recovery.iloc[0]
    own, plant = (row[key].split("-") for key in ("genotype", "plant"))
    recovered = sum(a == b for a, b in zip(own, plant, strict=True))
    assert row["genotype"] == str(report.genotype)
    assert f"(blind guessing gives 2.00): random {recovered}" in " ".join(report.reading)
    assert row["plant"] in " ".join(report.reading)
    assert "rror of the answers" not in " ".join(report.reading)


def test_each_search_seed_has_its_own_plant_unless_all_have_the_same(settings):
    problem = Experiment.of(load_config(settings)).problem
    assert [problem.plant_job(seed).number for seed in range(2)] == [0, 1]
    same = {**settings, "planted": {"share": 0, "same": True, "seed": 7}}
    problem = Experiment.of(load_config(same)).problem
    assert [problem.plant_job(seed).number for seed in range(2)] == [7, 7]
    assert problem.config.task == "distillation"
    recorded = {"config": problem.config.model_dump(mode="json"), "versions": {}}
    assert load_config(recorded) == problem.config


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"host": None}, "planted needs a frozen host"),
        ({"host": {"epochs": 1, "frozen": False}}, "planted needs a frozen host"),
        ({"data": {"shift": {"kinds": ["noise"]}}}, "leave shift out"),
        ({"task": "classification", "metric": "val_loss"}, "leave task out"),
        ({"planted": {"share": 1.5}}, r"planted\.share.*less than 1"),
        ({"planted": {"shares": 0.1}}, r"unknown key 'planted\.shares'.*'share'"),
    ],
)
def test_mistakes_are_named(settings, change, why):
    with pytest.raises(UserError, match=why):
        Experiment.of(load_config({**settings, **change}))


def test_reliability_needs_one_plant_and_a_table_none(settings, tmp_path):
    with pytest.raises(UserError, match=r"planted\.same=true"):
        measure_reliability(settings, genotypes=2, seeds=2)
    with pytest.raises(UserError, match="leave planted out"):
        tabulate(tmp_path / "t.parquet", settings)


@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist"])
def test_the_presets_plant_into_a_frozen_host(dataset):
    config = load_config(f"planted_{dataset}")
    assert config.planted.share > 0
    assert config.host.frozen
    assert config.data.shift is None
    assert config.task_options == {"match": "logits"}
