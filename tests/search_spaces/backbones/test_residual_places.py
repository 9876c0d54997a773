"""Ends of residual branches, against the places that the catalogue's networks have by hand."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from search_spaces.backbones.residual_places import Place, insert_after, residual_places


class Branch(nn.Module):
    def __init__(self, add, end):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.shortcut = nn.BatchNorm2d(3)
        self.end = end
        self.add = add

    def forward(self, x):
        return self.add(self.end(self.norm(self.conv(x))), self.shortcut(x))


def in_place(branch, shortcut):
    branch += shortcut
    return branch


@pytest.mark.parametrize(
    "add",
    [
        in_place,
        torch.add,
        torch.Tensor.add_,
        lambda branch, shortcut: branch + shortcut,
        lambda branch, shortcut: shortcut + branch,
        lambda branch, shortcut: torch.add(shortcut, branch, alpha=0.5),
    ],
)
def test_the_branch_is_what_was_convolved_whichever_way_it_is_added(add):
    for end in (nn.Identity(), nn.ReLU(inplace=True), nn.Dropout(0.5)):
        network = Branch(add, end).train()
        assert residual_places(network, torch.zeros(1, 3, 6, 5)) == [Place("norm", 3, (6, 5))]
        assert network.training


def test_a_branch_that_ends_with_a_function_has_no_place():
    network = Branch(torch.add, lambda x: x.square() + 1)
    assert residual_places(network, torch.zeros(1, 3, 6, 6)) == []


def test_a_module_that_is_called_twice_is_no_place():
    block = Branch(torch.add, nn.Identity())
    assert residual_places(nn.Sequential(block, block), torch.zeros(1, 3, 6, 6)) == []


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (torchvision.models.resnet18, [f"layer{i}.{j}.bn2" for i in (1, 2, 3, 4) for j in (0, 1)]),
        (torchvision.models.vgg11, []),
        (torchvision.models.densenet121, []),
        (torchvision.models.swin_t, []),  # maps of (B, H, W, C), not convolved
        (
            lambda: timm.create_model("seresnet18"),
            [f"layer{i}.{j}.se" for i in (1, 2, 3, 4) for j in (0, 1)],
        ),
    ],
)
def test_places_are_the_ends_of_the_papers_blocks(network, expected):
    model = network()
    assert [place.path for place in residual_places(model, torch.zeros(1, 3, 32, 32))] == expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mobilenet_v2", "InvertedResidual"),
        ("convnext_tiny", "CNBlock"),
        ("resnet50", "Bottleneck"),
    ],
)
def test_attention_acts_on_the_branch_alone(name, kind):
    """With zero at the end of all branches, a residual block is its shortcut."""
    model = torchvision.models.get_model(name).eval()
    places = residual_places(model, torch.zeros(1, 3, 64, 64))
    for place in places:
        insert_after(model, place.path, Zero(place))
    residual = [
        block
        for path, block in model.named_modules()
        if type(block).__name__ == kind and any(p.path.startswith(f"{path}.") for p in places)
    ]
    assert len(residual) == len(places)
    inputs = {}

    def record(module, given, output):
        inputs[module] = given[0].clone(), output.clone()

    for block in residual:
        block.register_forward_hook(record)
    model(torch.rand(1, 3, 64, 64))
    for block, (x, y) in inputs.items():
        shortcut = getattr(block, "downsample", None) or nn.Identity()
        expected = shortcut(x)
        torch.testing.assert_close(y, expected.relu() if kind == "Bottleneck" else expected)


class Zero(nn.Module):
    def __init__(self, place):
        super().__init__()
        self.place = place

    def forward(self, x):
        assert x.shape[1:] == (self.place.channels, *self.place.size)
        return 0 * x
