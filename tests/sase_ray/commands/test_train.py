"""`sase-ray train`, and `sase-ray latency`."""

from __future__ import annotations

import pytest
import torch

from sase_ray.commands import train as training
from sase_ray.commands.train import train
from sase_ray.config import load_config
from sase_ray.execution.experiment import Experiment
from search_spaces.errors import UserError
from trainables.final import training as final
from trainables.one_shot.latency_table import LatencyTable

GENOTYPE = "gap-conv3-affine-gap-gap-conv3x3"


@pytest.fixture
def settings(tiny):
    tiny["final"] |= {"epochs": 3}
    return tiny


def test_the_weights_that_are_kept_are_those_that_were_judged(settings, tmp_path):
    path = tmp_path / "network.pt"
    trained = train(GENOTYPE, settings, output=path)
    setup = Experiment.of(load_config(settings))
    network = setup.problem.network.with_genotype(GENOTYPE)
    network.load_state_dict(torch.load(path, weights_only=True))
    data = setup.problem.final_data
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in vars(data.normalisation).values())
    images = (data.test.images.float() / 255 - mean) / std
    with torch.no_grad():
        right = (network.eval()(images).argmax(1) == data.test.labels).float().mean()
    assert trained.results["test_accuracy"] == pytest.approx(float(right))
    assert [p.name for p in tmp_path.iterdir()] == ["network.pt"]


def test_an_interrupted_training_goes_on(settings, tmp_path, monkeypatch):
    undisturbed = train("se", settings, output=tmp_path / "whole.pt")
    epoch, calls = final.train_epoch, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return epoch(*args, **kwargs)

    monkeypatch.setattr(final, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train("se", settings, output=tmp_path / "cut.pt")
    assert not (tmp_path / "cut.pt").exists()
    resumed = train("se", settings, output=tmp_path / "cut.pt")
    assert len(calls) == 4, "the first epoch is not trained again"
    assert resumed.results == undisturbed.results
    first, second = (
        torch.load(tmp_path / name, weights_only=True) for name in ("whole.pt", "cut.pt")
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_what_only_searches_need_is_not_asked_for(settings, tmp_path):
    one_shot = {
        "strategies": ["fbnet", "random+rsws"],
        "strategy_options": {"fbnet": {"latency_table": "nowhere.json"}},
        "budget": 100,
        "agreement": "nowhere.parquet",
        "warm_start_from": "nowhere",
        "reliability": "nowhere",
    }
    with pytest.raises(UserError):
        Experiment.of(load_config(settings | one_shot))
    assert train(GENOTYPE, settings | one_shot, output=tmp_path / "network.pt").path.exists()


def test_mistakes_are_told_in_a_sentence(settings, tmp_path):
    with pytest.raises(UserError, match="nonsense"):
        train("nonsense", settings, output=tmp_path / "a.pt")
    (tmp_path / "b.pt").touch()
    with pytest.raises(UserError, match="exists"):
        train(GENOTYPE, settings, output=tmp_path / "b.pt")


def test_a_training_that_diverges_keeps_no_network(settings, tmp_path, monkeypatch):
    lost = {"diverged": True, "reason": "training loss is not finite"}
    monkeypatch.setattr(training, "train_final", lambda *args: lost)
    with pytest.raises(UserError, match="diverged: training loss is not finite"):
        train(GENOTYPE, settings, output=tmp_path / "network.pt")


@pytest.mark.slow
def test_latencies_are_written_and_told(command, tmp_path):
    path = tmp_path / "latency.json"
    small = ["--space", "sase_tiny", "--backbone", "resnet8"]
    done = command("latency", str(path), "--dataset", "digits", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = LatencyTable.load(path)
    assert table.device.split()[0] in done.stdout
    assert "host without attention" in done.stdout
    refused = command("latency", "/proc/no/table.json", "--dataset", "digits", cwd=tmp_path)
    assert refused.returncode == 2
