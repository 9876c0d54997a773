"""`adapt` on networks of torchvision and timm that a user made, and images of their own."""

from __future__ import annotations

import copy
import threading
from pathlib import Path

import numpy as np
import pytest
import timm.models.resnet
import torch
import torchvision
from torch import nn
from torch.utils.data import TensorDataset

from sase_ray import SASE, Adapted, adapt
from sase_ray.commands.resume import resume
from sase_ray.config import load_config
from sase_ray.execution.experiment import Problem
from search_spaces.errors import UserError
from trainables.data.fit import fit_images

SMALL = {
    "space": "sase_tiny",
    "proxy": {"epochs": 1, "batch_size": 32},
    "final": {"epochs": 1, "batch_size": 32, "train_size": 120, "gradcam_images": 0},
    "host": {"epochs": 2, "batch_size": 32},
}


def of_torchvision(classes=10):
    torch.manual_seed(0)
    return torchvision.models.ResNet(
        torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=classes
    )


def of_timm(classes=10):
    torch.manual_seed(0)
    return timm.models.resnet.ResNet(
        timm.models.resnet.BasicBlock,
        layers=(1, 1, 1, 1),
        channels=(8, 8, 16, 16),
        stem_width=8,
        num_classes=classes,
        in_chans=1,
        zero_init_last=False,
    )


@pytest.fixture(scope="module")
def coloured(digits):
    """Digits in three channels, as floats, and what remains of them divided by 3."""
    return fit_images(digits.images[:300], 3, None) / 255, digits.labels[:300] % 3


def assert_host_is(model, network, *, but=()):
    """The network's host has the parameters of the model, bit for bit."""
    state = {n.replace(".module.", "."): p for n, p in network.named_parameters()}
    for name, value in model.named_parameters():
        assert name in but or torch.equal(state[name], value), name
    return state


def accuracy_of(result):
    """The network's accuracy on the run's test images, by its own normalisation."""
    test = Problem.of(load_config(result.folder / "config.yaml")).final_data.test
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in vars(result.normalisation).values())
    with torch.no_grad():
        logits = result.network((test.images / 255 - mean) / std)
    return (logits.argmax(1) == test.labels).float().mean().item()


@pytest.mark.ray
@pytest.mark.slow
def test_a_network_of_torchvision_gets_a_classifier_of_my_classes(ray_cluster, coloured, tmp_path):
    model = of_torchvision().eval()
    before = copy.deepcopy(model.state_dict())
    result = adapt(
        model,
        TensorDataset(*coloured),
        strategy="random",
        budget=300,
        data={"train_size": 96, "validation_size": 60},
        results=str(tmp_path / "results"),
        run="mine",
        **SMALL,
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert set(result.accuracies) == {"random", "none", "se"}
    assert result.accuracy == result.accuracies["random"]
    network = result.network
    assert not network.training
    blocks = [module for module in network.modules() if isinstance(module, SASE)]
    assert len(blocks) == 4
    state = assert_host_is(model, network, but=("fc.weight", "fc.bias"))
    assert state["fc.weight"].shape == (3, 512)
    assert accuracy_of(result) == pytest.approx(result.accuracy, abs=1e-6)
    moved = result.folder.rename(tmp_path / "moved")
    again = Adapted.load(moved)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(again.network(images), network(images))
    assert (again.genotype, again.accuracies) == (result.genotype, result.accuracies)
    (moved / "networks").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="has no adapted network"):
        Adapted.load(moved)


@pytest.mark.ray
@pytest.mark.slow
def test_a_network_of_timm_keeps_its_classifier_and_resumes(ray_cluster, tmp_path, monkeypatch):
    from sase_ray.commands import compare

    def interrupted(self):
        raise KeyboardInterrupt

    model = of_timm()
    settings = {
        **SMALL,
        "budget": 400,
        "data": {"train_size": 96, "validation_size": 60},
        "results": str(tmp_path / "results"),
        "run": "mine",
        "strategy_options": {"darts": {"batch_size": 16}},
    }
    with monkeypatch.context() as patch:
        patch.setattr(compare._Run, "train_finals", interrupted)
        with pytest.raises(KeyboardInterrupt):
            adapt(model, "digits", normalisation=([0.25], [0.5]), **settings)
    folder = Path(settings["results"]) / "mine"
    with pytest.raises(UserError, match="exists"):
        adapt(model, "digits", **settings)
    assert not resume(folder).failures
    result = Adapted.load(folder)
    assert (result.strategy, result.normalisation.mean) == ("darts", (0.25,))
    assert_host_is(model, result.network)
    assert accuracy_of(result) == pytest.approx(result.accuracy, abs=1e-6)


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


IMAGES = np.zeros((20, 3, 8, 8), np.uint8)
LABELS = np.arange(20) % 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": nn.Sequential(nn.Conv2d(3, 4, 3))}, "expected logits"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(192, 4))}, "no place for attention"),
        ({"model": of_timm()}, r"takes images of 1 channel\(s\), and these have 3"),
        ({"model": "resnet18"}, r"model is a str, expected a torch\.nn\.Module"),
        ({"model": Locked()}, "cannot be pickled"),
        ({"dataset": (IMAGES, LABELS - 1)}, "labels are out of range: the lowest is -1"),
        ({"dataset": (IMAGES[:0], LABELS[:0])}, "has no images"),
        ({"dataset": []}, "has no images"),
        ({"dataset": (IMAGES, LABELS[:3])}, "one for each image"),
        ({"dataset": "digit"}, "unknown data set 'digit'"),
        ({"dataset": "digits"}, r"set data\.channels to 3"),
        ({"dataset": "digits", "test": (IMAGES, LABELS)}, "has its own test images"),
        ({"dataset": 3}, "dataset is a int"),
        ({"strategy": "dart"}, "unknown strategy 'dart'"),
        ({"classifier": "kept"}, "the network has 10 classes, and the images have 4"),
        ({"classifier": "old"}, r"host\.classifier"),
        ({"normalisation": 3}, "normalisation is a pair"),
        ({"normalisation": ([0.5], [0.5])}, r"has 1 channel\(s\), the images have 3"),
        ({"normalisation": ([0.5] * 3, [0.0] * 3)}, "greater than 0"),
        ({"final": {"workers": 2}}, r"final\.workers is 2.*leave final\.workers out"),
        ({"budget": 1}, "budget"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(arguments, message, tmp_path):
    given = {"model": of_torchvision(), "dataset": (IMAGES, LABELS), "results": str(tmp_path)}
    given |= {"budget": 1000, **SMALL, "final": {"epochs": 1}, **arguments}
    with pytest.raises(UserError, match=message):
        adapt(given.pop("model"), given.pop("dataset"), **given)
    assert list(tmp_path.iterdir()) == []
