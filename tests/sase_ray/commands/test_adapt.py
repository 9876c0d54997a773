"""Comparisons in a frozen host: all strategies in one host, resumed too; test images unread."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from sase_ray import compare
from sase_ray.commands import compare as command
from sase_ray.commands.resume import resume
from sase_ray.commands.train import train
from sase_ray.config import load_config
from sase_ray.execution.experiment import Experiment
from search_spaces.errors import UserError
from trainables.final import training
from trainables.training import frozen_host


@pytest.fixture
def settings(tiny):
    return {
        **tiny,
        "data": {**tiny["data"], "shift": {"kinds": ["contrast", "noise"], "severity": 4}},
        "host": {"epochs": 2, "batch_size": 32},
        "strategies": ["random", "darts"],
        "strategy_options": {"darts": {"batch_size": 16}},
        "baselines": ["none", "se", "bn", "full"],
        "seeds": 1,
    }


@pytest.mark.ray
@pytest.mark.slow
def test_a_comparison_in_a_frozen_host_resumes(ray_cluster, settings, monkeypatch):
    whole = compare(**settings, run="whole")
    assert not whole.failures
    assert set(whole.table["name"]) == {"random", "darts", "none", "se", "bn", "full"}
    (told,) = [sentence for sentence in whole.reading if "frozen host" in sentence]
    assert "192 samples" in told  # 2 epochs of 96 images, once
    costs = whole.table.set_index("name")["search_samples"]
    # Two trials of 2 epochs on 96 images; 60 to judge by, and 96 for the statistics of batch
    # norms, at a third each; none is the host's.
    assert costs["random"] == 2 * (2 * 96 + 2 * 60 // 3 + 2 * 96 // 3)

    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command._Run, "train_finals", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compare(**settings, run="halted")
    folder = whole.folder.parent / "halted"
    again = resume(folder)
    columns = ["name", "seed", "final_seed", "module", "test_accuracy", "test_loss"]
    first, second = (pd.read_parquet(f / "final.parquet")[columns] for f in (whole.folder, folder))
    pd.testing.assert_frame_equal(first, second)
    assert told.split(";")[0].split(",")[:2] == [
        part for s in again.reading if "frozen host" in s for part in s.split(",")[:2]
    ]


def test_one_module_is_trained_in_the_same_host(settings, tmp_path, monkeypatch):
    hosts = []
    enter = training.enter_host

    def watched(model, host, tunes):
        hosts.append(host)
        enter(model, host, tunes)

    monkeypatch.setattr(training, "enter_host", watched)
    trained = train("se", settings, output=tmp_path / "se.pt")
    state = torch.load(trained.path, weights_only=True)
    setup = Experiment.of(load_config(settings))
    expected = frozen_host.train_frozen_host(setup.problem.host_job)
    for host in (hosts[0], expected):
        for name, value in host.state.items():
            moves = "running" in name or "tracked" in name
            assert moves or torch.equal(state[name], value), name
    assert state.keys() - expected.state.keys()


def test_a_search_and_its_host_get_no_test_image(settings):
    setup = Experiment.of(load_config(settings))
    test = {image.numpy().tobytes() for image in setup.problem.final_data.test.images}
    plain = Experiment.of(load_config({**settings, "data": {**settings["data"], "shift": None}}))
    test |= {image.numpy().tobytes() for image in plain.problem.final_data.test.images}
    job = setup.task(0).job
    for data in (job.data, job.host_job.data, job.host_job.shifted):
        for part in (data.train, data.validation):
            assert not test & {image.numpy().tobytes() for image in part.images}
    assert torch.equal(job.host_job.data.train.images, plain.problem.search_data.train.images)
    assert not torch.equal(job.data.train.images, plain.problem.search_data.train.images)
    assert job.samples_of_host == 0


def test_mistakes_are_named(settings):
    for name in ("bn", "full"):
        with pytest.raises(UserError, match=f"baseline {name!r} tunes a trained host"):
            Experiment.of(load_config({**settings, "host": None, "baselines": [name]}))
    with pytest.raises(UserError, match="is no file"):
        Experiment.of(load_config({**settings, "host": {"weights": "nowhere.pt"}}))
    with pytest.raises(UserError, match=r"host.*did you mean 'weights'"):
        load_config({**settings, "host": {"weight": "x.pt"}})


@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist"])
def test_the_presets_of_the_experiment_have_shift_and_host(dataset):
    config = load_config(f"adapt_{dataset}")
    assert config.data.shift is not None
    assert config.host.frozen
    assert config.proxy.warm_host is None
    assert {"bn", "full"} <= set(config.baselines)
    # The recorded configuration gives the same again.
    recorded = {"config": config.model_dump(mode="json"), "versions": {}}
    assert load_config(recorded) == config
