"""Comparisons in a frozen host: all strategies in one host, resumed too; test images unread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
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
from trainables.data import Normalisation
from trainables.data.fit import fit_images
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


@pytest.fixture
def from_source(settings, tmp_path):
    """The host is trained on coloured noise of 7 classes, in 10x10, and adapted to digits."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (120, 3, 10, 10), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(120) % 7)
    source = {"dataset": "arrays", "root": str(tmp_path), "image_size": 8, "channels": 1}
    return {
        **settings,
        "data": {**settings["data"], "shift": None},
        "host": {**settings["host"], "source": source},
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


@pytest.mark.ray
@pytest.mark.slow
def test_a_host_of_other_classes_is_adapted_by_all_alike(ray_cluster, from_source):
    result = compare(**from_source)
    assert not result.failures
    assert set(result.table["name"]) == {"random", "darts", "none", "se", "bn", "full"}
    (host,) = [sentence for sentence in result.reading if "frozen host" in sentence]
    assert "on validation images of arrays" in host
    assert f"{2 * 64 + 2 * 96} samples" in host  # of 76 to train on, two batches of 32; digits


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_resumes_without_the_file_of_its_host(ray_cluster, settings, tmp_path, monkeypatch):
    weights = tmp_path / "host.pt"
    train("none", {**settings, "host": None}, output=weights)
    content = weights.read_bytes()
    settings = {**settings, "host": {"weights": str(weights)}, "strategies": ["random"]}
    settings |= {"strategy_options": {}, "baselines": [], "run": "halted"}

    def interrupted(self):
        weights.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command._Run, "train_finals", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compare(**settings)
    folder = Path(settings["results"]) / "halted"
    (copy,) = (folder / "inputs").iterdir()
    assert copy.read_bytes() == content
    again = resume(folder)
    assert not again.failures
    # The same settings once more take the copy too, and no other file in its place.
    repeated = load_config(folder / "config.yaml")
    assert repeated.host.weights == str(copy)
    copy.write_bytes(b"another")
    with pytest.raises(UserError, match="is not the file that the run was made with"):
        load_config(folder / "config.yaml")


def test_a_source_is_fitted_to_the_target(from_source):
    problem = Experiment.of(load_config(from_source)).problem
    job = problem.host_job
    with np.load(f"{from_source['host']['source']['root']}/images.npz") as content:
        every = {i.numpy().tobytes() for i in fit_images(torch.tensor(content["images"]), 1, 8)}
    assert job.data.shape == job.shifted.shape == (1, 8, 8)
    assert {image.numpy().tobytes() for image in job.data.train.images} <= every
    assert (job.own_network.num_classes, job.network.num_classes) == (7, 10)
    assert job.new_classifier
    assert torch.equal(job.shifted.train.images, problem.search_data.train.images)


def test_images_are_normalised_as_the_host_expects(from_source):
    data = {**from_source["data"], "normalisation": {"mean": [0.25], "std": [0.5]}}
    problem = Experiment.of(load_config({**from_source, "data": data})).problem
    views = problem.search_data, problem.final_data, problem.host_job.data
    assert {view.normalisation for view in views} == {Normalisation((0.25,), (0.5,))}


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


def test_a_source_that_does_not_fit_is_named(from_source):
    def refused(**change):
        host = {**from_source["host"], **change.pop("host", {})}
        Experiment.of(load_config({**from_source, **change, "host": host}))

    source = from_source["host"]["source"]
    with pytest.raises(UserError, match=r"'arrays' are 1x10x10, those of 'digits' 1x8x8"):
        refused(host={"source": {**source, "image_size": None}})
    with pytest.raises(UserError, match=r"cannot be turned into 2"):
        refused(host={"source": {**source, "channels": 2}})
    with pytest.raises(UserError, match="'arrays' has 7 classes and 'digits' 10"):
        refused(host={"classifier": "kept"})
    with pytest.raises(UserError, match="unknown data set 'digit'"):
        refused(host={"source": {**source, "dataset": "digit"}})
    with pytest.raises(UserError, match=r"host\.source.*did you mean 'dataset'"):
        refused(host={"source": {"datset": "digits"}})
    with pytest.raises(UserError, match=r"normalisation has 3 channel\(s\), the images have 1"):
        refused(data={"normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3}})
    with pytest.raises(UserError, match="mean has 1 values, std 2"):
        refused(data={"normalisation": {"mean": [0.5], "std": [0.5, 0.5]}})
    with pytest.raises(UserError, match=r"leave host\.source and host\.classifier out"):
        refused(planted={"share": 0})


@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist"])
def test_the_presets_of_the_experiment_have_shift_and_host(dataset):
    config = load_config(f"adapt_{dataset}")
    assert config.data.shift is not None
    assert config.host.frozen
    assert config.proxy.warm_host is None
    assert {"none", "se", "cbam"} <= set(config.baselines)
    # The recorded configuration gives the same again.
    recorded = {"config": config.model_dump(mode="json"), "versions": {}}
    assert load_config(recorded) == config
