"""Adding to a catalogue is adding one file; listing a catalogue is quick."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

NEW_FILES = {
    "search_spaces/ops/median.py": '''
from search_spaces.ops.registry import register_op

@register_op("channel_squeeze", "median", source="Anyone 2030")
def median(x):
    """The median over the map."""
    return x.flatten(2).median(2).values[:, :, None, None]
''',
    "search_spaces/backbones/plain.py": '''
from torch import nn
from search_spaces.backbones.attention import make_attention
from search_spaces.backbones.registry import register_backbone

@register_backbone("plain", stages=1, summary="one convolution", source="Anyone 2030")
def build(num_classes, in_channels, input_size, attention):
    """Build it."""
    block = make_attention(attention, 8, input_size, 0)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1), block, head)
''',
    "trainables/data/stripes.py": '''
import torch
from trainables.data.dataset import RawData
from trainables.data.registry import register_dataset

@register_dataset("stripes", source="Anyone 2030", summary="black and white")
def stripes(root):
    """Make two images."""
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat(2, 1, 4, 2)
    return RawData(images, torch.tensor([0, 1]), ("odd", "even"))
''',
    "trainables/tasks/top2.py": '''
from typing import ClassVar
from trainables.tasks.classification import Classification

class Top2(Classification):
    """Classification by another name."""

    name: ClassVar[str] = "top2"
    summary: ClassVar[str] = "one of two guesses, Anyone 2030"
''',
    "trainables/scores/depth.py": '''
from typing import ClassVar
from trainables.metrics import Metric, declare
from trainables.scores.contract import Score

DEPTH = Metric("depth", "max")
declare(DEPTH)

class Depth(Score):
    """The number of modules."""

    name: ClassVar[str] = "depth"
    source: ClassVar[str] = "Anyone 2030"
    summary: ClassVar[str] = "how many modules a network has"
    metric: ClassVar[Metric] = DEPTH
    passes: ClassVar[int] = 0

    def compute(self, network, images, targets, task):
        """Count them."""
        return float(len(list(network.modules())))
''',
    "sase_ray/strategies/black_box/guess.py": '''
from typing import ClassVar
from sase_ray.strategies.black_box.random import RandomSearch

class Guess(RandomSearch):
    """Random search by another name."""

    name: ClassVar[str] = "guess"
    source: ClassVar[str] = "Anyone 2030"
    summary: ClassVar[str] = "guesses, with confidence"
''',
}

USE = """
import torch
from sase_ray.strategies import make_strategy
from search_spaces.backbones import build_backbone
from search_spaces.ops import build_op
from trainables.data import load_dataset
from trainables.scores.catalogue import make_score
from trainables.tasks.catalogue import make_task

x = torch.arange(15.0).reshape(1, 1, 3, 5)
assert build_op("channel_squeeze", "median", 1, (3, 5))(x).item() == 7
assert build_backbone("plain", num_classes=2)(torch.zeros(3, 3, 8, 8)).shape == (3, 2)
assert load_dataset("stripes").num_classes == 2
task = make_task("top2")
assert task.loss(torch.zeros(1, 2), torch.tensor([1])).item() > 0
assert make_score("depth").compute(torch.nn.ReLU(), x, x, task) == 1
assert make_strategy("guess").summary == "guesses, with confidence"
"""


def run(arguments, cwd):
    # Not by PYTHONPATH: what is in the current folder comes first.
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_new_file_is_all_it_takes(tmp_path):
    for package in ("sase_ray", "search_spaces", "trainables"):
        ignored = shutil.ignore_patterns("__pycache__", "*.parquet")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    for name, text in NEW_FILES.items():
        (tmp_path / name).write_text(text)
    run(["-c", USE], tmp_path)
    listed = "".join(
        run(["-m", "sase_ray", command], tmp_path)
        for command in ("strategies", "datasets", "backbones")
    )
    for name in ("guess", "stripes", "plain", "top2"):
        assert any(f"│ {name} " in x and "Anyone 2030" in x for x in listed.splitlines())


@pytest.mark.parametrize("command", ["strategies", "spaces", "datasets", "backbones", "--help"])
def test_listing_imports_neither_torch_nor_ray(command):
    script = (
        "import resource, sys\nfrom sase_ray.cli.app import app\n"
        f"app([{command!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'ray', 'timm', 'torchvision', 'pandas', 'optuna'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "assert used.ru_utime + used.ru_stime < 1, used\n"
    )
    assert "─" in run(["-c", script], ROOT)


def test_a_cifar_style_host_needs_neither_torchvision_nor_timm():
    script = (
        "import sys\nfrom search_spaces import NetworkSpec\n"
        "from search_spaces.backbones import get_backbone\n"
        "assert get_backbone('resnet20').stages == 3\n"
        "heavy = {'timm', 'torchvision'} & sys.modules.keys()\nassert not heavy, heavy\n"
    )
    run(["-c", script], ROOT)
