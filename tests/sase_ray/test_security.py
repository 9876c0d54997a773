"""What the packages never do with files and names of others, and what they never write.

Calls that could run what a file says (pickle, eval, unsafe YAML, shells) are refused by ruff's
rules `S`; here files that try are handed over.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from sase_ray.commands.compare_on_table import compare_on_table
from sase_ray.config import Config, load_config
from sase_ray.execution.experiment import Experiment
from sase_ray.results.folder import RunFolder
from sase_ray.strategies.catalogue import strategies
from sase_ray.tabular_benchmark.benchmark import TabularBenchmark
from sase_ray.tabular_benchmark.file_format import write_benchmark
from search_spaces.baselines import baselines
from search_spaces.errors import UserError
from search_spaces.genotype import EDGES, Genotype
from search_spaces.space import SearchSpace
from trainables.persistence.checkpoint import load_state


class Attack:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    reached = tmp_path / "reached"
    torch.save({"model": Attack(reached)}, tmp_path / "state.pt")
    with pytest.raises(pickle.UnpicklingError):
        load_state(tmp_path)
    options = {"weights": str(tmp_path / "state.pt")}
    with pytest.raises(UserError, match="no file of a state dict"):
        Experiment.of(load_config(overrides={"backbone": {"name": "resnet18", "options": options}}))
    assert not reached.exists()


def test_a_configuration_of_another_runs_no_code_when_it_is_read(tmp_path):
    (tmp_path / "own.py").write_text("raise SystemExit('ran')")
    edges = dict.fromkeys(EDGES, "s")
    definition = {"name": "own", "operations": ["own.py"], "sets": {"s": ["gap"]}, "edges": edges}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(definition))
    recorded = load_config(overrides={"space": str(tmp_path / "own.yaml")})
    written = {"config": recorded.model_dump(mode="json"), "versions": {}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(written))
    assert load_config(path) == recorded
    assert SearchSpace.load(recorded.space).operation_files
    # Only who begins a run with it runs the operations that it names.
    with pytest.raises(UserError, match="ran"):
        Experiment.of(load_config(path))


def test_a_table_whose_space_names_operations_of_its_own_runs_none(made_up_table, tmp_path):
    space = {**made_up_table.about["space"], "operations": ["raise SystemExit"]}
    path = tmp_path / "table.parquet"
    write_benchmark(made_up_table.rows, {**made_up_table.about, "space": space}, path)
    assert TabularBenchmark.load(path).space.operation_files == ()


# Names


OUTSIDE = ["..", ".", "../x", "a/b", "/tmp/x", "a\\b", ".hidden", "", " ", "a\n", "\na", "a\0"]
OUTSIDE += ["-x", "a b", "~", "x" * 101, "a\u2028", "\u2025", "a\r"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_run_stays_in_the_folder_of_results(name, tmp_path, made_up_table):
    results = tmp_path / "results"
    with pytest.raises(UserError, match="run: string should"):
        load_config(overrides={"results": str(results), "run": name})
    with pytest.raises(UserError, match="run: string should"):
        compare_on_table(made_up_table, results=results, run=name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "0", "a.b-c_d", "2026-01-01", "caf\u00e9", "a..", "x" * 100])
def test_a_plain_name_of_a_run_is_taken(name, tmp_path):
    folder = RunFolder.create(load_config(overrides={"results": str(tmp_path), "run": name}))
    assert folder.path.parent == tmp_path


@pytest.mark.parametrize("results", ["a\0b", "x" * 5000, "/dev/null/x", "/proc/x"])
def test_a_folder_of_results_that_cannot_be_made_is_one_sentence(results):
    for run in (None, "mine"):
        with pytest.raises(UserError, match="cannot be made"):
            RunFolder.create(load_config(overrides={"results": results, "run": run}))


def test_names_that_become_folders_and_tags_have_no_separator():
    names = [*strategies(), *(module.name for module in baselines())]
    for name in ("sase", "sase_tiny"):
        space = SearchSpace.load(name)
        names += [space.name, str(space[0]), str(space[-1])]
    for name in names:
        assert not set(name) & set("/\\.\0\n "), name


@pytest.mark.parametrize("op", ["..", "a/b", "a\n", "", "\0", "a.b", "/etc"])
def test_no_genotype_or_space_holds_the_name_of_a_path(op, tmp_path):
    with pytest.raises(UserError, match="not an operation name"):
        Genotype.parse("-".join([op, *["gap"] * 5]))
    space = SearchSpace.load("sase_tiny")
    sets = {name: [*ops, op] for name, ops in space.sets.items()}
    definition = {"name": "own", "sets": sets, "edges": dict(space.edges)}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(definition))
    with pytest.raises(UserError, match="is not a name"):
        SearchSpace.load(path)


@pytest.mark.parametrize("name", ["../x", "a/b", "a\n", "", "..", "x" * 101])
def test_no_space_is_called_like_a_path(name, tmp_path):
    path = tmp_path / "own.yaml"
    space = SearchSpace.load("sase_tiny")
    definition = {"name": name, "sets": {k: [*v] for k, v in space.sets.items()}}
    path.write_text(yaml.safe_dump({**definition, "edges": dict(space.edges)}))
    with pytest.raises(UserError, match="name: string should"):
        SearchSpace.load(path)


# Secrets


TOKEN = "5f3a-a-token-that-nobody-else-has-9c21"

TOKENS = ("RAY_AUTH_TOKEN", "RAY_ADDRESS_TOKEN", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY")


@pytest.mark.ray
def test_what_a_run_writes_and_says_holds_nothing_of_the_environment(
    ray_cluster, made_up_table, tmp_path, monkeypatch, capfd
):
    for name in TOKENS:
        monkeypatch.setenv(name, TOKEN)
    own = RunFolder.create(load_config(overrides={"results": str(tmp_path), "run": "own"}))
    own.write_config(Config(results=str(tmp_path), run="own"), {"splits": {"test": 1}})
    assert yaml.safe_load((own.path / "config.yaml").read_text())["hardware"]["cpus"] == 2
    compare_on_table(
        made_up_table, ["random", "tpe"], seeds=2, budget=3000, results=tmp_path, run="mine"
    )
    said = "".join(capfd.readouterr())
    assert TOKEN not in said
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"config.yaml", "strategies.csv"} <= {path.name for path in written}
    for path in written:
        content = path.read_bytes()
        if path.suffix == ".parquet":  # compressed
            content = pd.read_parquet(path).to_csv().encode()
        assert TOKEN.encode() not in content, path
        assert not any(name.encode() in content for name in TOKENS), path
