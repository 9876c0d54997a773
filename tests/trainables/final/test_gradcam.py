"""Grad-CAM of trained networks, against its closed form, and what may go wrong with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from search_spaces.errors import UserError
from search_spaces.network import NetworkSpec
from search_spaces.space import SearchSpace
from trainables.data import final_data, make_splits
from trainables.final import training
from trainables.final.gradcam import chosen_images, class_activations, last_map, read_activations
from trainables.final.training import FinalJob, train_final
from trainables.persistence.checkpoint import Checkpoints
from trainables.persistence.resumable import NOTE
from trainables.persistence.store import Store
from trainables.training.protocol import TrainingProtocol

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(digits):
    return final_data(digits, make_splits(digits, seed=0, train_size=96, validation_size=40))


class Pooled(nn.Module):
    """A convolution, ReLU, the mean over positions, a linear layer."""

    def __init__(self, stride):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 5, 3, stride, padding=1), nn.ReLU())
        self.head = nn.Linear(5, 10)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def scaled(maps):
    """To 0 .. 1 by each map's least and greatest value, as the package does."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


def decoded(row, name, *shape):
    return np.frombuffer(row[name], np.uint8).reshape(shape)


@pytest.mark.parametrize("stride", [1, 2])
def test_of_a_linear_head_it_is_the_weighted_sum_of_the_maps(stride, data):
    torch.manual_seed(1)
    model = Pooled(stride)
    images = [3, 50, 200]
    table = class_activations(model, data, images, CPU)
    labels = data.test.labels[images]
    assert table["label"].tolist() == labels.tolist()
    assert table["image"].tolist() == images
    pixels = data.test.images[images]
    inputs = (pixels / 255 - data.normalisation.mean[0]) / data.normalisation.std[0]
    with torch.no_grad():
        assert table["predicted"].tolist() == model(inputs).argmax(1).tolist()
        maps = model.features(inputs)
        # The gradient of the logit to a position of map c is head[label, c] / positions.
        expected = torch.einsum("nchw,nc->nhw", maps, model.head.weight[labels]).relu()
        expected = scaled(expected)
        if stride > 1:
            expected = F.interpolate(expected[:, None], size=(8, 8), mode="bilinear")[:, 0]
            expected = scaled(expected)
    for row, cam, image in zip(table.to_dict("records"), expected, pixels, strict=True):
        assert (row["height"], row["width"], row["channels"]) == (8, 8, 1)
        found = decoded(row, "cam", 8, 8)
        assert np.abs(found - 255 * cam.numpy()).max() <= 0.51, "rounded to 1/255"
        assert (decoded(row, "pixels", 8, 8, 1)[..., 0] == image[0].numpy()).all()


@pytest.mark.parametrize(
    ("backbone", "size", "layer"),
    [
        ("resnet8", 8, "layer3"),
        ("resnet18", 64, "layer4"),
        ("convnext_atto", 64, "features"),
        ("timm:resnet18", 64, "layer4"),
    ],
)
def test_the_last_map_is_that_of_the_last_stage(backbone, size, layer):
    network = NetworkSpec(backbone, 10, 3, (size, size)).with_baseline("none").eval()
    assert last_map(network, torch.zeros(1, 3, size, size)) is network.get_submodule(layer)


def test_a_network_without_a_map_is_told(data):
    with pytest.raises(UserError, match="no feature map"):
        class_activations(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), data, [0], CPU)


def test_images_are_of_as_many_classes_as_possible_and_follow_from_the_seed():
    labels = torch.tensor([0] * 50 + [1] * 5 + [2] * 2 + [3])
    for count, classes in ((2, 2), (4, 4), (6, 4)):
        chosen = chosen_images(labels, count, seed=0)
        assert len({*chosen}) == count
        assert len({*labels[list(chosen)].tolist()}) == classes
        assert labels[list(chosen)].bincount().max() <= 1 + (count > 4)
    assert chosen_images(labels, 4, 0) == chosen_images(labels, 4, 0)
    assert chosen_images(labels, 4, 0) != chosen_images(labels, 4, 1)
    assert chosen_images(labels, 100, 0) == tuple(range(58))
    assert chosen_images(labels, 0, 0) == ()


@pytest.fixture
def make_final(make_job):
    def make(**options):
        return FinalJob(
            network=make_job().network,
            space=SearchSpace.load("sase"),
            module="gap_gmp-fc-affine-pnorm-gap-conv3x3_x2",
            baseline=False,
            protocol=TrainingProtocol(epochs=1, batch_size=16),
            seed=0,
            **options,
        )

    return make


def without_clock(result):
    return {key: value for key, value in result.items() if key != "train_seconds"}


def test_a_final_training_keeps_it_and_comes_out_as_without(make_final, data, tmp_path):
    store = Store(tmp_path)
    images = chosen_images(data.test.labels, 8, 0)
    plain = train_final(make_final(), data)
    shown = train_final(make_final(shown=images), data, Checkpoints(store))
    assert without_clock(shown) == without_clock(plain)
    kept = read_activations(store)
    assert kept["image"].tolist() == list(images)
    # The job that goes on from its last checkpoint looks at the same network.
    again = Store(tmp_path / "again")
    again.write(store.names()[0], store.read(store.names()[0]))
    train_final(make_final(shown=images), data, Checkpoints(again))
    assert read_activations(again).equals(kept)
    assert read_activations(Store(tmp_path / "none")) is None


def test_what_goes_wrong_is_a_note_and_the_result_stands(make_final, data, tmp_path, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("no eyes")

    monkeypatch.setattr(training, "class_activations", broken)
    result = train_final(make_final(shown=(0, 1)), data, Checkpoints(Store(tmp_path)))
    assert result.pop(NOTE) == "no Grad-CAM: no eyes"
    assert without_clock(result) == without_clock(train_final(make_final(), data))
    assert read_activations(Store(tmp_path)) is None
