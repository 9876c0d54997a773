import copy
from urllib.error import URLError

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from timm.layers import SEModule
from torch import nn
from torchvision.models.convnext import CNBlock
from torchvision.models.resnet import BasicBlock, Bottleneck

from search_spaces.backbones import Backbone, backbones, build_backbone, get_backbone
from search_spaces.errors import UserError

TORCHVISION = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "convnext_tiny",
    "convnext_small",
    "convnext_base",
]
FAST = [("resnet8", {}), ("resnet18", {}), ("resnet50", {}), ("convnext_atto", {"patch": 1})]
FAST_IDS = [name for name, _ in FAST]
KNOWN = {*TORCHVISION, "resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56"}
EVERY = [*FAST, *((row.name, {}) for row in backbones() if row.name not in {*KNOWN, *FAST_IDS})]
"""A small member of each family; a new backbone is in it by itself."""


class Scale(nn.Module):
    """Multiplies by a parameter; remembers what it was told and what it saw."""

    def __init__(self, channels, size, stage, factor=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.told = (channels, *size)
        self.stage = stage
        self.seen = None

    def forward(self, x):
        self.seen = tuple(x.shape[1:])
        return self.factor * x


class Convolution(nn.Conv2d):
    """Something that a host's initialisation would overwrite."""

    def __init__(self, channels, size, stage):
        super().__init__(channels, channels, 1)
        nn.init.constant_(self.weight, 0.25)
        nn.init.constant_(self.bias, 0.5)


def zero(channels, size, stage):
    return Scale(channels, size, stage, factor=0.0)


def of_type(network, kind):
    return [module for module in network.modules() if isinstance(module, kind)]


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def residual_blocks(network):
    return [module for module in network.modules() if hasattr(module, "attention")]


def shortcut(block, x):
    """What a block gives when its residual branch is zero."""
    if isinstance(block, CNBlock):
        return x
    if isinstance(block, (BasicBlock, Bottleneck)):
        return F.relu(x if block.downsample is None else block.downsample(x))
    if block.stride == 1:
        return x
    subsampled = x[:, :, ::2, ::2]
    return torch.cat([subsampled, torch.zeros_like(subsampled)], dim=1)


def record_io(modules):
    """Let each module remember its input and a copy of its output."""
    io = {}

    def hook(module, args, output):
        io[module] = (args[0].clone(), output.clone())

    for module in modules:
        module.register_forward_hook(hook)
    return io


def test_catalogue():
    stages = {row.name: row.stages for row in backbones()}
    cifar = {f"resnet{depth}": 3 for depth in (8, 14, 20, 32, 44, 56)}
    assert (cifar | dict.fromkeys([*TORCHVISION, "convnext_atto"], 4)).items() <= stages.items()
    assert all(row.summary and "arXiv" in row.source for row in backbones())


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_cifar_resnets_have_the_parameters_of_table_6(depth, millions):
    network = build_backbone(f"resnet{depth}", num_classes=10)
    assert round(parameters(network) / 1e6, 2) == millions
    assert len(of_type(network, nn.Conv2d)) + len(of_type(network, nn.Linear)) == depth


@pytest.mark.parametrize(("name", "option"), [("resnet20", "depth"), ("convnext_tiny", "widths")])
def test_what_the_name_says_is_no_option(name, option):
    with pytest.raises(UserError, match=f"{name!r} takes no option {option!r}"):
        build_backbone(name, num_classes=2, **{option: 3})


def test_cifar_width_scales_every_layer():
    network = build_backbone("resnet14", num_classes=10, in_channels=5, width=6)
    widths = [conv.out_channels for conv in of_type(network, nn.Conv2d)]
    assert widths == [6] * 5 + [12] * 4 + [24] * 4
    assert network(torch.randn(2, 5, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_hosts_have_the_official_layers(name):
    with torch.device("meta"):
        ours = build_backbone(name, num_classes=1000)
        official = torchvision.models.get_model(name)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    assert parameters(ours) == weights.meta["num_params"]
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in official.state_dict().items()
    }


def test_convnext_atto_has_about_the_published_parameters():
    # timm's convnext_atto, of the same depths and widths: 3.70 M.
    with torch.device("meta"):
        network = build_backbone("convnext_atto", num_classes=1000, input_size=(224, 224))
    assert round(parameters(network) / 1e6, 2) == 3.70


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "convnext_tiny"])
def test_output_is_that_of_torchvision(name):
    official = torchvision.models.get_model(name, num_classes=7).eval()
    ours = build_backbone(name, num_classes=7, input_size=(64, 48)).eval()
    ours.load_state_dict(official.state_dict())
    images = torch.randn(2, 3, 64, 48)
    torch.testing.assert_close(ours(images), official(images))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "convnext_tiny"])
def test_a_seed_gives_the_initial_weights_of_torchvision_whatever_the_attention(name):
    torch.manual_seed(5)
    official = torchvision.models.get_model(name, num_classes=7).state_dict()
    torch.manual_seed(5)
    ours = build_backbone(name, num_classes=7, attention=Convolution).state_dict()
    assert all(torch.equal(ours[key], value) for key, value in official.items())


@pytest.mark.parametrize(("name", "options"), [*EVERY, ("timm:resnet26", {})])
def test_the_host_leaves_the_attentions_initial_weights_alone(name, options):
    network = build_backbone(name, num_classes=3, attention=Convolution, **options)
    modules = of_type(network, Convolution)
    assert modules
    assert all((m.weight == 0.25).all() and (m.bias == 0.5).all() for m in modules)


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        *[("resnet8", {"width": 4}, size) for size in [(8, 8), (33, 17), (1, 1), (28, 32)]],
        *[("resnet18", {}, size) for size in [(8, 8), (33, 47), (65, 64), (1, 3)]],
        ("resnet50", {}, (37, 33)),
        *[("convnext_atto", {"patch": 1}, size) for size in [(8, 8), (15, 31)]],
        *[("convnext_atto", {}, size) for size in [(32, 32), (47, 63)]],
        ("convnext_atto", {"patch": 3}, (28, 29)),
        ("convnext_tiny", {}, (35, 65)),
    ],
)
def test_attention_is_told_the_shape_it_sees(name, options, size):
    network = build_backbone(
        name, num_classes=3, in_channels=1, input_size=size, attention=Scale, **options
    ).eval()
    network(torch.randn(1, 1, *size))
    modules = of_type(network, Scale)
    assert [m.told for m in modules] == [m.seen for m in modules]


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_attention_of_every_host_has_a_stage_and_keeps_its_shape(name, options):
    network = build_backbone(name, num_classes=3, attention=Scale, **options).eval()
    assert network(torch.randn(1, 3, 32, 32)).shape == (1, 3)
    modules = of_type(network, Scale)
    assert [m.told for m in modules] == [m.seen for m in modules]
    assert {m.stage for m in modules} == set(range(get_backbone(name).stages))


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("resnet20", [3, 3, 3]),
        ("resnet18", [2, 2, 2, 2]),
        ("resnet101", [3, 4, 23, 3]),
        ("convnext_atto", [2, 2, 6, 2]),
        ("convnext_small", [3, 3, 27, 3]),
    ],
)
def test_every_block_has_attention_and_knows_its_stage(name, blocks):
    with torch.device("meta"):
        network = build_backbone(name, num_classes=3, attention=Scale)
    stages = [stage for stage, count in enumerate(blocks) for _ in range(count)]
    assert [module.stage for module in of_type(network, Scale)] == stages
    assert len(blocks) == get_backbone(name).stages


@pytest.mark.parametrize(("name", "options"), FAST, ids=FAST_IDS)
def test_attention_reads_the_end_of_the_residual_branch(name, options):
    network = build_backbone(name, num_classes=3, attention=Scale, **options)
    blocks = residual_blocks(network)
    last = [getattr(b, "block", None) or getattr(b, "bn3", None) or b.bn2 for b in blocks]
    io = record_io([*last, *[b.attention for b in blocks]])
    network(torch.randn(2, 3, 32, 32))
    for block, end in zip(blocks, last, strict=True):
        assert torch.equal(io[block.attention][0], io[end][1])


@pytest.mark.parametrize(("name", "options"), FAST, ids=FAST_IDS)
def test_with_attention_zero_a_block_is_its_shortcut(name, options):
    network = build_backbone(name, num_classes=3, attention=zero, **options)
    blocks = residual_blocks(network)
    io = record_io(blocks)
    network.eval()(torch.randn(2, 3, 32, 32))
    for block in blocks:
        x, y = io[block]
        assert torch.equal(y, shortcut(block, x))


def test_a_factory_may_leave_a_block_without_attention():
    def last_stage_only(channels, size, stage):
        return Scale(channels, size, stage) if stage == 2 else None

    plain = build_backbone("resnet14", num_classes=3)
    mixed = build_backbone("resnet14", num_classes=3, attention=last_stage_only)
    added = mixed.state_dict().keys() - plain.state_dict().keys()
    assert added == {"layer3.0.attention.factor", "layer3.1.attention.factor"}
    assert plain.state_dict().keys() <= mixed.state_dict().keys()


@pytest.mark.parametrize("in_channels", [1, 3, 4])
@pytest.mark.parametrize(("name", "options"), EVERY)
def test_trains_with_any_number_of_image_channels(name, options, in_channels):
    network = build_backbone(
        name, num_classes=5, in_channels=in_channels, attention=Scale, **options
    )
    logits = network(torch.randn(2, in_channels, 32, 32))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny"])
def test_weights_file_of_a_plain_network_loads_into_the_host(name, tmp_path):
    official = torchvision.models.get_model(name)
    path = tmp_path / "host.pth"
    torch.save(official.state_dict(), path)
    network = build_backbone(name, num_classes=10, attention=Scale, weights=str(path))
    own = network.state_dict()
    head = "fc." if name == "resnet18" else "classifier.2."
    loaded = {k for k, v in official.state_dict().items() if torch.equal(v, own.get(k, v + 1))}
    assert {k for k in own if k not in loaded} == {
        k for k in own if ".attention." in k or k.startswith(head)
    }


def test_weights_file_of_a_network_with_attention_loads_that_too(tmp_path):
    def half(channels, size, stage):
        return Scale(channels, size, stage, factor=0.5)

    path = tmp_path / "trained.pth"
    torch.save(build_backbone("resnet18", num_classes=4, attention=half).state_dict(), path)
    network = build_backbone("resnet18", num_classes=4, attention=Scale, weights=path)
    assert {module.factor.item() for module in of_type(network, Scale)} == {0.5}


def test_weights_file_of_a_network_with_other_attention_is_refused(tmp_path):
    def from_stage_1(channels, size, stage):
        return Scale(channels, size, stage) if stage else None

    path = tmp_path / "trained.pth"
    torch.save(build_backbone("resnet18", num_classes=4, attention=from_stage_1).state_dict(), path)
    for attention, key in [(None, "layer2"), (Scale, "layer1"), (Convolution, "layer1")]:
        with pytest.raises(UserError, match=rf"another network: '{key}\.0\.attention"):
            build_backbone("resnet18", num_classes=4, attention=attention, weights=path)


def test_weights_name_loads_through_torchvision(tmp_path, monkeypatch):
    official = torchvision.models.resnet18()
    file = torchvision.models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    (tmp_path / "checkpoints").mkdir()
    torch.save(official.state_dict(), tmp_path / "checkpoints" / file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    network = build_backbone("resnet18", num_classes=10, in_channels=1, weights="DEFAULT")
    assert torch.equal(network.layer4[1].bn2.weight, official.layer4[1].bn2.weight)
    assert torch.equal(network.layer1[0].conv1.weight, official.layer1[0].conv1.weight)
    assert network.conv1.weight.shape == (64, 1, 7, 7)


def test_weights_that_cannot_be_downloaded_are_told(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(UserError, match=r"cannot get https://.*no route to host.*give its path"):
        build_backbone("resnet18", num_classes=10, weights="IMAGENET1K_V1")


def test_wrong_weights_are_told(tmp_path):
    wrong = tmp_path / "resnet34.pth"
    torch.save(torchvision.models.resnet34().state_dict(), wrong)
    garbage = tmp_path / "garbage.pth"
    garbage.write_text("not a file of torch")
    number = tmp_path / "number.pth"
    torch.save({"epoch": 3}, number)
    for weights, message in [
        (wrong, "another network"),
        (garbage, "no file of a state dict"),
        (number, "no file of a state dict"),
        ("DEFAUL", "no file, nor one of IMAGENET1K_V1, DEFAULT"),
    ]:
        with pytest.raises(UserError, match=message):
            build_backbone("resnet18", num_classes=10, weights=weights)
    with pytest.raises(UserError, match=r"'DEFAULT' are no file$"):
        build_backbone("convnext_atto", num_classes=10, weights="DEFAULT")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet8", {"widht": 8}, "'resnet8' takes no option 'widht'"),
        ("resnet8", {"depth": 20}, "takes no option 'depth'"),
        ("resnet8", {"width": 0}, "width of resnet8 is a positive integer, not 0"),
        ("resnet18", {"width": 8}, "'resnet18' takes no option 'width'"),
        ("convnext_atto", {"patch": 0}, "patch of convnext_atto is a positive integer, not 0"),
        ("convnext_atto", {"patch": 8}, "32x32 are too small .* patch 8: it takes 64x64"),
        ("resnet21", {}, "unknown backbone 'resnet21': did you mean 'resnet"),
        ("timm:resnet26", {"widht": 8}, "'timm:resnet26' takes no option 'widht'"),
        ("timm:resnet2666", {}, "unknown timm network 'resnet2666': did you mean resnet26"),
        ("timm:vit_tiny_patch16_224", {}, "no place for attention: it takes neither"),
        ("timm:mobilenetv2_100", {}, "no place for attention: it takes neither"),
    ],
)
def test_wrong_request_is_one_sentence(name, options, message):
    with pytest.raises(UserError, match=message):
        build_backbone(name, num_classes=10, **options)


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("resnet26", 8),
        ("resnet18d", 8),
        ("seresnet18", 8),
        ("efficientnet_b0", 16),
        ("mobilenetv3_small_100", 9),
        ("regnety_002", 13),
    ],
)
def test_timm_networks_train_with_attention(name, places):
    made = []

    def factory(channels, size, stage):
        made.append(Scale(channels, size, stage))
        return made[-1]

    network = build_backbone(f"timm:{name}", num_classes=5, in_channels=1, attention=factory)
    modules = of_type(network, Scale)
    assert len(modules) == places
    assert modules == made
    assert {(module.told[1:], module.stage) for module in modules} == {((7, 7), 0)}
    assert not of_type(network, SEModule)
    logits = network(torch.randn(2, 1, 48, 48))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert all(m.seen[0] == m.told[0] and m.factor.grad is not None for m in modules)


@pytest.mark.parametrize(
    ("name", "hook"),
    [
        ("resnet26", {"block_args": {"attn_layer": SEModule}}),
        ("resnet18", {"block_args": {"attn_layer": SEModule}}),
        ("efficientnet_b0", {"se_layer": lambda channels, **_: SEModule(channels)}),
    ],
)
def test_timm_attention_is_where_timms_own_hook_puts_it(name, hook):
    official = timm.create_model(name, num_classes=5, **hook).eval()
    ours = build_backbone(
        f"timm:{name}", num_classes=5, attention=lambda channels, size, stage: SEModule(channels)
    ).eval()
    if name == "efficientnet_b0":  # timm's hook hands the network's activation on, the factory not
        for module in of_type(official, SEModule):
            module.act = nn.ReLU()
    ours.load_state_dict(official.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), official(images))


@pytest.mark.parametrize("name", ["seresnet18", "mobilenetv3_small_100"])
def test_timm_plain_host_has_no_attention_of_its_own(name):
    network = build_backbone(f"timm:{name}", num_classes=5).eval()
    assert not [key for key in network.state_dict() if ".se." in key]
    assert network(torch.randn(1, 3, 32, 32)).shape == (1, 5)


def test_timm_pretrained_weights_load_into_the_host(tmp_path):
    official = timm.create_model("mobilenetv3_small_050")
    path = tmp_path / "weights.pth"
    torch.save(official.state_dict(), path)
    network = build_backbone(
        "timm:mobilenetv3_small_050",
        num_classes=5,
        attention=Scale,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(path)},
    )
    theirs = official.state_dict()
    host = {k: v for k, v in network.state_dict().items() if ".se." not in k}
    changed = {k for k, v in host.items() if not torch.equal(v, theirs[k])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_timm_row_counts_as_one_stage():
    row = get_backbone("timm:resnet26")
    assert isinstance(row, Backbone)
    assert (row.name, row.stages) == ("timm:resnet26", 1)


COPIES = [*EVERY, ("timm:resnet18", {})]


@pytest.mark.parametrize(("name", "options"), COPIES)
def test_copies_and_round_trips(name, options):
    def build():
        return build_backbone(name, num_classes=3, attention=Scale, **options).eval()

    network, images = build(), torch.randn(2, 3, 32, 32)
    expected = network(images)
    twin = build()
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin(images), expected)
    copied = copy.deepcopy(network)
    assert torch.equal(copied(images), expected)
    with torch.no_grad():
        of_type(copied, Scale)[-1].factor.fill_(0.0)
    assert of_type(network, Scale)[-1].factor.item() == 1.0


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_channels_last_gives_the_same(name, options):
    network = build_backbone(name, num_classes=3, attention=Scale, **options).eval()
    images = torch.randn(2, 3, 32, 32)
    expected = network(images)
    network.to(memory_format=torch.channels_last)
    got = network(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


class Pure(nn.Module):
    """Attention without a memory, as an exporter wants it."""

    def __init__(self, channels, size, stage):
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()


def test_export():
    network = build_backbone("resnet8", num_classes=3, width=4, attention=Pure).eval()
    images = torch.randn(2, 3, 16, 16)
    exported = torch.export.export(network, (images,)).module()
    torch.testing.assert_close(exported(images), network(images))


@pytest.mark.slow
def test_compiles_to_one_graph():
    network = build_backbone("resnet8", num_classes=3, width=4, attention=Pure).eval()
    images = torch.randn(2, 3, 16, 16)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images), network(images))
