"""A path may begin with `~` or hold `$VAR`, wherever a user gives one."""

from __future__ import annotations

import json
import re
import shutil
import sys
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml
from pydantic import BaseModel

from sase_ray import TabularBenchmark, load_config, load_run
from sase_ray.cli import app
from sase_ray.commands import submit as submit_module
from sase_ray.config import Config
from sase_ray.report import write_report
from sase_ray.results.folder import RunFolder
from sase_ray.strategies.catalogue import make_strategy, strategies
from sase_ray.tabular_benchmark.benchmark import BUNDLED
from search_spaces.backbones import build_backbone
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from trainables.data import load_dataset
from trainables.one_shot.latency_table import LatencyTable
from trainables.persistence.store import Store


@pytest.fixture
def home(tmp_path, monkeypatch):
    (home := tmp_path / "home").mkdir()
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SCRATCH", str(home))
    yield home
    assert list(here.iterdir()) == [], "nothing is made where the command was typed"


def paths_of(model: type[BaseModel], before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The keys of all texts of a configuration that its descriptions call a path."""
    found = []
    for name, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        for inner in [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]:
            found += paths_of(inner, (*before, name))
        is_path = re.search(r"\b(folder|file|path)\b", field.description or "")
        if is_path and name != "run" and "str" in str(field.annotation):  # a run has a name
            found.append((*before, name))
    return found


NEEDED: dict[str, Any] = {"source": {"dataset": "digits"}}
"""Keys without which a section of the configuration is refused."""


@pytest.mark.parametrize("key", paths_of(Config), ids=".".join)
def test_every_path_of_a_configuration(key, home):
    for written in ("~/own.yaml", "${SCRATCH}/own.yaml"):
        nested: Any = written
        for part, outer in zip(reversed(key), [*reversed(key[:-1]), ""], strict=True):
            nested = {**NEEDED.get(outer, {}), part: nested}
        value: Any = load_config(None, nested)
        for part in key:
            value = getattr(value, part)
        assert value == f"{home}/own.yaml"


def test_paths_among_the_options_of_any_part(home):
    for section in (
        "backbone.options", "data.options", "host.source.options",
        "strategy_options.fbnet",
    ):  # fmt: skip
        values = load_config(
            None, {"strategies": ["fbnet"], "host": NEEDED}, [f"{section}.x=[~/a, $SCRATCH/b]"]
        )
        for part in section.split("."):
            values = values[part] if isinstance(values, dict) else getattr(values, part)
        assert values["x"] == [f"{home}/a", f"{home}/b"]
    own = load_config(assignments=["backbone.name=file:~/net.pt"])
    assert own.backbone.name == f"file:{home}/net.pt"


def test_every_option_of_a_strategy_that_is_a_file(home):
    options = [
        (name, option)
        for name, strategy in strategies().items()
        for option, field in strategy.model_fields.items()
        if re.search(r"\b(folder|file|path)\b", field.description or "")
    ]
    assert options
    for name, option in options:
        assert getattr(make_strategy(name, {option: "~/x"}), option) == f"{home}/x"


@pytest.mark.usefixtures("undrawn")
def test_every_function_that_is_given_a_path(home, make_run, tmp_path):
    shutil.copytree(make_run("made"), home / "run")
    assert load_run("~/run").path == home / "run"
    write_report(["$SCRATCH/run"], output="~/own.html")
    assert (home / "own.html").is_file()
    shutil.copyfile(BUNDLED, home / "table.parquet")
    assert TabularBenchmark.load("~/table.parquet").genotypes
    table = LatencyTable(device="d", network="n", batch_size=1, host=1.0, operations={})
    table.save("~/latency/table.json")
    assert LatencyTable.load("$SCRATCH/latency/table.json") == table
    Store("~/store").write("piece", b"x")
    assert (home / "store" / "piece").read_bytes() == b"x"
    assert RunFolder.make("~/results", "new", "any").path == home / "results" / "new"
    (home / "config.yaml").write_text("seeds: 7")
    assert load_config("~/config.yaml").seeds == 7
    np.savez(
        home / "images.npz", images=np.zeros((40, 1, 8, 8), np.uint8), labels=np.arange(40) % 2
    )
    assert load_dataset("arrays", "~").num_classes == 2
    torch.save(build(None).state_dict(), home / "weights.pt")
    build("~/weights.pt")
    with pytest.raises(UserError, match="are no file"):
        build("./~/here.pt")


def build(weights):
    options = {
        "num_classes": 2,
        "in_channels": 3,
        "input_size": (32, 32),
        "attention": lambda *_: 0,
    }
    return build_backbone("resnet18", weights=weights, **options | {"attention": lambda *_: None})


def test_the_operation_files_of_a_space(home, write_space):
    path = write_space({}, operations="x = 1\n")
    shutil.move(path.with_name("operations.py"), home / "operations.py")
    content = yaml.safe_load(path.read_text()) | {"operations": ["~/operations.py"]}
    (home / "own.yaml").write_text(json.dumps(content))
    assert SearchSpace.load("~/own.yaml").operation_files[0].text == "x = 1\n"


def test_a_command_line_on_which_no_shell_expands_them(home, write_space, monkeypatch, capsys):
    shutil.move(write_space({}), home / "own.yaml")
    words = ["show", "gap-affine-affine-gap-gap-affine", "--space=~/own.yaml"]
    monkeypatch.setattr(sys, "argv", ["sase-ray", *words])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 0
    assert "multiply-accumulates" in capsys.readouterr().out


def test_a_job_gets_the_paths_of_the_machine_that_submits_it(home, monkeypatch):
    (home / "config.yaml").write_text("{results: ~/out, data: {root: ~/d}, reliability: /$SCRATCH}")
    sent = []
    monkeypatch.setattr(submit_module, "connect", lambda address: None)
    monkeypatch.setattr(submit_module, "start_job", lambda _, command, *rest: sent.append(command))
    submit_module.submit("~/config.yaml", ["storage=~/s"])
    for key, value in {"results": "/out", "data.root": "/d", "storage": "/s"}.items():
        assert f"""--set '{key}="{home}{value}"'""" in sent[0]
    assert f"""--set 'reliability="/{home}"'""" in sent[0]
