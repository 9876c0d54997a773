"""Adding to a catalogue takes one file, here and in the tests; listing a catalogue is quick."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.sase_ray.commands.test_resume import Runs, assert_equal

ROOT = Path(__file__).parents[1]
NEW_FILES = ROOT / "tests" / "new_files"
"""One file of each kind with its test file, in the place where a contributor adds it."""

NAMES = {
    "strategies": ("genetic", "concrete", "input-grad"),
    "spaces": ("sase_midrange",),
    "datasets": ("stripes", "top2"),
    "backbones": ("plain_cnn",),
}
"""Names of the new entries by the command that lists them."""


def run(arguments, cwd, **environment):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def enlarged(tmp_path_factory):
    """A copy of the packages and tests to which the new files have been added."""
    folder = tmp_path_factory.mktemp("enlarged")
    ignored = shutil.ignore_patterns("__pycache__", "new_files")
    for package in ("sase_ray", "search_spaces", "trainables", "tests"):
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    added = [path for path in NEW_FILES.rglob("*") if path.is_file()]
    assert not [path for path in added if (ROOT / path.relative_to(NEW_FILES)).exists()]
    shutil.copytree(NEW_FILES, folder, dirs_exist_ok=True, ignore=ignored)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", NAMES)
def test_a_new_file_is_listed(command, enlarged):
    lines = run(["-m", "sase_ray", command], enlarged).splitlines()
    for name in NAMES[command]:
        assert any(line.startswith(f"\u2502 {name} ") for line in lines), name


@pytest.mark.full
def test_the_tests_of_all_members_take_up_the_new_ones(enlarged):
    """Also those files' own tests."""
    names = ["midrange", *(name for names in NAMES.values() for name in names)]
    chosen = " or ".join({*names, *(name.replace("-", "_") for name in names)})
    told = run(
        [
            *["-m", "pytest", "-v", "-p", "no:cacheprovider", "-m", "not gpu and not full"],
            *["-k", chosen, "tests/search_spaces", "tests/trainables", "tests/sase_ray/strategies"],
        ],
        enlarged,
        PYTHONPATH=str(enlarged),
    )
    passed = [line for line in told.splitlines() if "PASSED" in line]
    for name in names:
        assert any(f"{name}]" in test or f"{name}-" in test or f"-{name}" in test
                   for test in passed), name  # fmt: skip
    for path in NEW_FILES.rglob("test_*.py"):
        assert any(path.name in test for test in passed), path.name


@pytest.mark.full
@pytest.mark.ray
def test_all_of_them_are_compared_resumed_and_reported(enlarged, tmp_path):
    """An interrupted run ends with the tables of one that was not."""
    settings = {
        "dataset": "stripes",
        "data": {"train_size": 96, "validation_size": 60},
        "task": "top2",
        "space": "sase_midrange",
        "backbone": {"name": "plain_cnn"},
        "strategies": ["genetic", "concrete", "zero-cost"],
        "strategy_options": {"zero-cost": {"score": "input-grad"}, "concrete": {"batch_size": 16}},
        "proxy": {"epochs": 2, "batch_size": 32},
        "final": {"epochs": 1, "gradcam_images": 1},
        "budget": 3000,
        "seeds": 1,
        "baselines": ["se"],
        "resources": {"trials_at_once": 1},
    }
    # Ray's workers look for packages in the folder of the driver first.
    undisturbed, interrupted = (
        Runs(tmp_path / name, settings, working_folder=enlarged) for name in ("whole", "parts")
    )
    undisturbed.end(undisturbed.compare())
    driver = interrupted.compare()
    interrupted.wait_until(driver, lambda: bool(interrupted.files("outcomes/*.json")))
    driver.send_signal(signal.SIGINT)
    interrupted.end(driver, 130)
    interrupted.resume()
    assert_equal(interrupted.tables(), undisturbed.tables())
    tables = interrupted.tables()
    assert set(tables["strategies"]["name"]) == {"genetic", "concrete", "zero-cost", "se"}
    assert tables["final"]["test_top2"].between(0, 1).all()
    assert tables["trials"]["input_grad"].gt(0).any()
    assert tables["trials"]["channel_squeeze"].eq("midrange").any()
    interrupted.end(interrupted.start("report", str(interrupted.run), "--format", "md"))
    report = (interrupted.run / "report.md").read_text()
    assert "test top2" in report
    for name in ("genetic", "concrete", "zero-cost"):
        assert f"| {name} |" in report


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
