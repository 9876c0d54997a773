"""Entries that a user's script or module registers reach the processes that train."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading

import pytest
import yaml
from ray import cloudpickle

from sase_ray.execution.registered import take_along
from search_spaces.errors import UserError
from search_spaces.ops import load_operations, register_op
from search_spaces.space import SearchSpace
from tests.patience import PATIENCE

MODULE = '''
from search_spaces.backbones.registry import register_backbone
from search_spaces.ops import register_op
from trainables.metrics import Metric, declare

HALF = 0.5
declare(Metric("halves", "min"))

def helper(z):
    return HALF * z

@register_op("channel_excite", "half")
def half(z):
    """Half of it."""
    return helper(z)

@register_backbone("own_host", stages=1, summary="None.", source="None.")
def own_host(**options):
    return options
'''

ELSEWHERE = """
import pickle, sys
import torch
space = pickle.load(open(sys.argv[1], "rb"))
from search_spaces.ops import build_op, load_operations
from search_spaces.backbones import get_backbone
from trainables.metrics import find_metric
load_operations(space)
assert "own_module" not in sys.modules
again = pickle.loads(pickle.dumps(space))  # as a search's process hands it to its trials
assert again.registered.content == space.registered.content
print(build_op("channel_excite", "half", 2, (1, 1))(torch.ones(1)).item())
print(get_backbone("own_host").name, find_metric("halves").mode)
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Import a module of the user, which other machines do not have."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "own_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield importlib.import_module("own_module")
    del sys.modules["own_module"]


@pytest.mark.usefixtures("own_module")
def test_what_a_module_registers_is_there_in_a_process_without_the_module(write_space, tmp_path):
    from dataclasses import replace

    space = SearchSpace.load(write_space({"refine_excite": ["half"]}))
    space = replace(space, registered=take_along())
    (tmp_path / "space.pkl").write_bytes(cloudpickle.dumps(space))
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path / "space.pkl")],
        cwd=tmp_path / "modules",  # but not on the path of a script in another folder
        env=None,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["0.5", "own_host", "min"]


def test_without_anything_registered_nothing_is_taken_along():
    assert not take_along()


@pytest.mark.usefixtures("own_module")
def test_what_cannot_be_pickled_does_not_stand_in_the_way_of_the_rest(monkeypatch):
    before = len(take_along().content)
    lock = threading.Lock()

    @register_op("channel_excite", "locked")
    def locked(z):
        with lock:
            return z

    assert len(take_along().content) == before


def test_a_space_needs_its_operations(write_space):
    with pytest.raises(UserError, match="half"):
        load_operations(SearchSpace.load(write_space({"refine_excite": ["half"]})))


SCRIPT = """
import sys
import own_module
from sase_ray import UserError, register_op, search

@register_op("channel_excite", "double")
def double(z):
    '''Twice.'''
    return 2 * z

if {broken}:
    from ray import cloudpickle
    from sase_ray.execution import experiment
    from search_spaces.registered import Registered
    experiment.take_along = lambda: Registered((cloudpickle.dumps((print, ())),))

try:
    report = search("random", "config.yaml")
    print("found", report.genotype, len(report.outcome.history.trials()))
except UserError as error:
    print("error:", error)
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.usefixtures("own_module")
def test_a_script_searches_what_it_registers_itself(broken, tiny, write_space, tmp_path):
    space = write_space({"refine_excite": ["half"], "channel_excite": ["double", "half"]})
    settings = {**tiny, "strategies": ["random"], "space": str(space), "run": "own"}
    folder = tmp_path / "modules"
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "script.py").write_text(SCRIPT.format(broken=broken))
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr[-2000:]
    if broken:
        assert "error: what was registered here cannot be used where trials run" in done.stdout
        assert "'double'" in done.stdout or "'half'" in done.stdout
        assert not (tmp_path / "results").exists(), "nothing is written before"
    else:
        assert "found gap-" in done.stdout
