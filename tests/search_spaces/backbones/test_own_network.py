"""A network of one's own as a host: the catalogue's networks, entered as if they were mine."""

import hashlib
import os
import pickle

import pytest
import timm
import torch
import torchvision
from torch import nn

from search_spaces.backbones import build_backbone, get_backbone
from search_spaces.backbones.own_network import fit_network
from search_spaces.baselines import baseline_attention
from search_spaces.errors import UserError
from search_spaces.network import NetworkSpec

SHAPE = (3, 32, 32)


def none(channels, size, stage):
    return None


@pytest.fixture
def write(tmp_path):
    def write(content):
        data = pickle.dumps(content)
        (tmp_path / "own.pt").write_bytes(data)
        return f"file:{tmp_path / 'own.pt'}", {"sha256": hashlib.sha256(data).hexdigest()}

    return write


def own_resnet(classes=5):
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=classes)


@pytest.mark.parametrize(
    ("mine", "name"),
    [
        (lambda: torchvision.models.resnet18(num_classes=5), "resnet18"),
        (lambda: torchvision.models.resnet50(num_classes=5), "resnet50"),
        (lambda: timm.create_model("resnet10t", num_classes=5), "timm:resnet10t"),
    ],
)
def test_attention_is_where_the_catalogues_network_has_it(mine, name):
    torch.manual_seed(0)
    network = fit_network(mine(), 5, SHAPE, baseline_attention("se")).eval()
    other = build_backbone(
        name, num_classes=5, in_channels=3, input_size=SHAPE[1:], attention=baseline_attention("se")
    ).eval()
    theirs = [(n, *v.shape) for n, v in other.state_dict().items()]
    by_shape = sorted(theirs, key=lambda entry: ".attention." in entry[0] or ".se." in entry[0])
    state = network.state_dict()
    names = sorted(state, key=lambda n: ".attention." in n)
    assert [tuple(state[n].shape) for n in names] == [tuple(shape) for _, *shape in by_shape]
    pairs = zip(by_shape, names, strict=True)
    other.load_state_dict({theirs[0]: state[mine] for theirs, mine in pairs})
    images = torch.randn(2, *SHAPE)
    torch.testing.assert_close(network(images), other(images))


def test_without_attention_the_network_computes_what_it_did(write):
    model = own_resnet().eval()
    images = torch.randn(2, *SHAPE)
    expected = model(images)
    name, options = write(model)
    network = NetworkSpec(name, 5, *SHAPE[:1], SHAPE[1:], options).with_baseline("none")
    assert network.training
    torch.testing.assert_close(network.eval()(images), expected)
    assert get_backbone(name).stages == 1


def test_another_number_of_classes_gets_a_new_classifier_drawn_by_the_seed(write):
    name, options = write(own_resnet())
    spec = NetworkSpec(name, 7, 3, SHAPE[1:], options)
    first, again, other = (spec.build(seed=seed) for seed in (1, 1, 2))
    assert first(torch.randn(2, *SHAPE)).shape == (2, 7)
    assert torch.equal(first.fc.weight, again.fc.weight)
    assert not torch.equal(first.fc.weight, other.fc.weight)
    assert torch.equal(first.conv1.weight, own_resnet().conv1.weight)


def test_the_memory_of_a_network_is_estimated_without_it(write):
    name, options = write(own_resnet())
    with torch.device("meta"):
        network = NetworkSpec(name, 7, 3, SHAPE[1:], options).with_baseline("se")
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(5))
        self(torch.zeros(1, *SHAPE))


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (Plain, SHAPE, "no place for attention"),
        (own_resnet, (1, 32, 32), r"takes images of 3 channel\(s\), and these have 1"),
        (lambda: torchvision.models.vgg11().features, SHAPE, "expected logits"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 5)), SHAPE, "cannot take images"),
        (lambda: nn.Sequential(nn.Flatten(), nn.LogSoftmax(1)), SHAPE, "no linear layer"),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 9), nn.Unflatten(1, (3, 3))),
            SHAPE,
            "expected logits",
        ),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 9), nn.AdaptiveAvgPool1d(4)),
            SHAPE,
            "is not its classifier",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_refused_in_one_sentence(model, shape, message):
    with pytest.raises(UserError, match=message):
        fit_network(model(), 5, shape, none)


class Attack:
    """Makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_only_the_file_with_the_digest_is_loaded(write, tmp_path):
    reached = tmp_path / "reached"
    name, options = write(Attack(reached))
    for given in ({}, {"sha256": "0" * 64}, {"sha256": ""}):
        with pytest.raises(UserError, match="not the file with the digest"):
            build_backbone(name, num_classes=5, **given)
    assert not reached.exists()
    with pytest.raises(UserError, match="no module"):
        build_backbone(name, num_classes=5, **options)
    assert reached.exists()  # so whoever states the digest trusts the file
    with pytest.raises(UserError, match="cannot be read"):
        build_backbone("file:nowhere.pt", num_classes=5, **options)
    garbage = tmp_path / "garbage.pt"
    garbage.write_bytes(b"nothing")
    digest = hashlib.sha256(b"nothing").hexdigest()
    with pytest.raises(UserError, match="cannot be loaded"):
        build_backbone(f"file:{garbage}", num_classes=5, sha256=digest)
