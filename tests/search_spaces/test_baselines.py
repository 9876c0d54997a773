import pytest
import torch
from torch import nn

from search_spaces.backbones import build_backbone
from search_spaces.baselines import baseline_attention, baselines
from search_spaces.errors import UserError

NAMES = [row.name for row in baselines()]
MODULES = [row.name for row in baselines() if row.module(16) is not None]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_catalogue_begins_with_the_plain_host_and_names_the_papers():
    rows = baselines()
    assert NAMES[0] == "none"
    assert {"se", "eca", "cbam", "gc", "ese", "ge"} <= {*MODULES}
    assert all("arXiv" in row.source for row in rows if row.name not in ("none", "full"))
    assert [row.name for row in rows if row.tunes != "modules"] == ["bn", "full"]


def test_none_gives_no_module():
    assert baseline_attention("none")(16, (8, 8), 0) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Two 1x1 convolutions with bias, 256 to 256 / 16 and back.
        ("se", 256 * 16 + 16 + 16 * 256 + 256),
        # k = |log2(256) / 2 + 1 / 2| to the next odd = 5.
        ("eca", 5),
        # The same MLP without biases, a 7x7 convolution of two maps, its batch norm.
        ("cbam", 2 * 256 * 16 + 2 * 49 + 2),
    ],
)
def test_parameters_are_those_of_the_paper(name, expected):
    module = baseline_attention(name)(256, (8, 8), 0)
    assert parameters(module) == expected


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("channels", [8, 24, 64])
def test_keeps_the_shape_and_gates_the_map(name, channels):
    module = baseline_attention(name)(channels, (8, 8), 0)
    x = torch.randn(2, channels, 5, 7)
    y = module(x)
    assert y.shape == x.shape
    gate = y / x
    assert ((gate > 0) & (gate < 1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_network_with_a_baseline_trains(name):
    network = build_backbone(
        "resnet8",
        num_classes=10,
        in_channels=1,
        input_size=(8, 8),
        width=8,
        attention=baseline_attention(name),
    )
    network(torch.randn(4, 1, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_squeeze_excitation_rescales_channels_by_its_definition():
    module = baseline_attention("se")(32, (4, 4), 0)
    x = torch.randn(2, 32, 4, 4)
    hidden = torch.relu(x.mean((2, 3)) @ module.fc1.weight[:, :, 0, 0].T + module.fc1.bias)
    gate = torch.sigmoid(hidden @ module.fc2.weight[:, :, 0, 0].T + module.fc2.bias)
    torch.testing.assert_close(module(x), x * gate[:, :, None, None])


def test_gather_excite_gates_by_the_sigmoid_of_each_channels_mean():
    x = torch.randn(2, 24, 5, 7)
    expected = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
    torch.testing.assert_close(baseline_attention("ge")(24, (5, 7), 0)(x), expected)


def test_unknown_name_is_told_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown baseline 'cbm': did you mean 'cbam'\?"):
        baseline_attention("cbm")
