"""Whatever stands in a file or on the command line: a value or one sentence, and soon."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sase_ray.analysis.proxy_reliability import measured_reliability, protocol_key
from sase_ray.config import Config, load_config
from sase_ray.execution.experiment import Experiment
from sase_ray.protocols import presets
from sase_ray.tabular_benchmark.benchmark import TabularBenchmark
from sase_ray.tabular_benchmark.file_format import SCHEMA
from search_spaces.errors import UserError
from search_spaces.genotype import PUBLISHED, Genotype
from search_spaces.space import SearchSpace, describe_space, space_names

pytestmark = pytest.mark.slow


SECONDS = 5.0
"""Longer than any input takes on a busy machine, shorter than what a user would call a hang."""

LONGEST_MESSAGE = 2500


def fuzz(examples: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def value_or_sentence() -> Iterator[None]:
    """What runs inside returns, or raises a `UserError` of one line that can be printed; soon."""
    began = time.process_time()
    try:
        yield
    except UserError as error:
        assert_sentence(error)
    assert time.process_time() - began < SECONDS


@contextlib.contextmanager
def a_sentence(match: str = ".") -> Iterator[None]:
    """What runs inside raises such an error, with these words in it; soon."""
    began = time.process_time()
    with pytest.raises(UserError, match=match) as told:
        yield
    assert_sentence(told.value)
    assert time.process_time() - began < SECONDS


def assert_sentence(error: UserError) -> None:
    message = str(error)
    assert message.strip()
    assert message.isprintable()
    assert len(message) <= LONGEST_MESSAGE


def mutations(whole: Any, replacements: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw copies of a nested value in which one to three places hold something else."""

    @st.composite
    def draw_one(draw: st.DrawFn) -> Any:
        mutated = json.loads(json.dumps(whole))
        for _ in range(draw(st.integers(1, 3))):
            mutated = _replaced(draw, mutated, replacements)
        return mutated

    return draw_one()


def _replaced(draw: st.DrawFn, value: Any, replacements: st.SearchStrategy[Any]) -> Any:
    if not isinstance(value, (dict, list)) or not value or draw(st.integers(0, 4)) == 0:
        return draw(replacements)
    if isinstance(value, list):
        place = draw(st.integers(0, len(value) - 1))
        return [_replaced(draw, v, replacements) if i == place else v for i, v in enumerate(value)]
    key = draw(st.sampled_from(list(value)))
    change = draw(st.sampled_from(["value", "value", "value", "missing", "key"]))
    rest = {name: inner for name, inner in value.items() if name != key}
    if change == "value":
        return {**rest, key: _replaced(draw, value[key], replacements)}
    if change == "key":
        return {**rest, draw(st.sampled_from(["", "a\nb", "\x1b[2J", "x" * 5000])): value[key]}
    return rest


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


ODD = st.sampled_from(
    [
        "",
        " ",
        "a\nb",
        "\x1b[2Jgone",
        "\ud800",
        "\0",
        "x" * 5000,
        "..",
        "../../etc/passwd",
        "/dev/zero",
        "/etc/passwd",
        "~nobody-of-this-name/x",
        "http://127.0.0.1:1/x.yaml",
        "1e6",
        "1e400",
        "nan",
        10**15,
        10**400,
        2**63,
        -1,
        0,
        1e308,
        5e-324,
        float("nan"),
        float("inf"),
        nested(20),
    ]
)
LEAVES = ODD | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
YAML_LEAVES = LEAVES | st.dates() | st.datetimes() | st.binary(max_size=4)


def trees(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.text(max_size=4) | st.integers() | st.none() | st.dates()
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=6,
    )


LAUGHS = [
    "&a0 [x, x, x, x, x, x, x, x, x]",
    *(f"&a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)),
]
MERGES = [
    "{a0: &a0 {x: 1, y: 2}",
    *(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12)),
]
HOSTILE = {
    "laughs": f"[{', '.join(LAUGHS)}]",
    "merges": ", ".join(MERGES) + "}",
    "wide": f"[&a [{'x, ' * 10_000}], {'*a, ' * 10_000}]",
    "itself": "&a [*a]",
    "itself as a mapping": "&a {x: *a}",
    "itself as a key": "&a {? *a : 1}",
    "merged with itself": "&a {<<: *a, x: 1}",
    "python object": "!!python/object/apply:os.system ['exit 3']",
    "python name": "!!python/name:os.system",
    "python tuple": "!!python/tuple [1]",
    "tag of somebody": "!mine {a: 1}",
    "binary": "!!binary AAECAw==",
    "no binary": "!!binary x",
    "set": "!!set {a, b}",
    "ordered": "!!omap [a: 1]",
    "no date": "2020-13-45",
    "sexagesimal": "1" + ":59" * 10_000,
    "digits": "9" * 90_000,
    "hexadecimal": "0x" + "f" * 90_000,
    "open": "[" * 1500,
    "nested": "[" * 200 + "]" * 200,
    "nested deeply": "{a: " * 2000,
    "many keys": f"{{{', '.join(f'k{i}: {i}' for i in range(2000))}}}",
    "anchors": " ".join(f"- &a{i} x\n" for i in range(1000)),
    "surrogate": '"\\ud800"',
    "escape": '"\\e[2J\\x00"',
    "documents": "a\n---\nb",
    "long": "x" * 200_000,
}

# Configurations

RECORDED = {
    "config": json.loads(load_config().model_dump_json()),
    "versions": {"python": "3.11"},
    "run": {"searches": ["random/seed0"]},
}


def as_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


@fuzz(120)
@given(
    content=st.one_of(
        mutations(RECORDED, trees(YAML_LEAVES)).map(as_yaml),
        mutations(RECORDED["config"], trees(YAML_LEAVES)).map(as_yaml),
        st.binary(max_size=40),
        st.text("aegs:{}[]&*!|>-?#%@'\" \n\t01.<", max_size=40).map(str.encode),
    )
)
def test_a_configuration_file_with_anything_in_it(tmp_path, content):
    path = tmp_path / "my.yaml"
    path.write_bytes(content)
    with value_or_sentence():
        config = load_config(path)
        # What is accepted can be recorded, and is read back as the same.
        path.write_text(yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True))
        assert load_config(path) == config


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_yaml_that_is_made_to_hurt(tmp_path, text):
    path = tmp_path / "my.yaml"
    for place in ("{}", "backbone: {{options: {{width: {}}}}}"):
        path.write_text(place.format(text))
        with value_or_sentence():
            load_config(path).model_dump_json()
    path.write_text(f"sets: {text}")
    with value_or_sentence():
        SearchSpace.load(path)


@pytest.mark.parametrize(
    "text", [HOSTILE["laughs"], HOSTILE["itself"], HOSTILE["merges"], HOSTILE["wide"]]
)
def test_aliases_that_stand_for_too_much_are_told_from_those_that_do_not(tmp_path, text):
    path = tmp_path / "my.yaml"
    path.write_text(f"strategy_options: {text}")
    with a_sentence(r"my\.yaml is too large: with its aliases written out"):
        load_config(path)
    path.write_text("{proxy: &p {epochs: 3, lr: 0.5}, final: {<<: *p, seeds: 2}}")
    config = load_config(path)
    assert (config.final.epochs, config.final.lr, config.final.seeds) == (3, 0.5, 2)


@pytest.mark.parametrize("read", [load_config, SearchSpace.load])
def test_what_is_no_file_of_text(tmp_path, read, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "bytes.yaml").write_bytes(os.urandom(1000))
    (tmp_path / "latin.yaml").write_bytes("dataset: caf\u00e9".encode("latin1"))
    (tmp_path / "zeros.yaml").symlink_to("/dev/zero")
    with (tmp_path / "sparse.yaml").open("wb") as file:
        file.truncate(2**40)
    names = ["folder", "bytes", "latin", "zeros", "sparse", "none", "x" * 5000, "a\0b", "\ud800"]
    for name in names:
        with a_sentence():
            read(f"{name}.yaml")


def paths_of(model: Any, head: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield head + name
        if hasattr(field.annotation, "model_fields"):
            yield from paths_of(field.annotation, f"{head}{name}.")


@fuzz(300)
@given(
    key=st.sampled_from([*paths_of(Config), "data.options.x", "strategy_options.tpe.x", ".", "a.b"])
    | st.text(max_size=6),
    value=st.text("ae{}[]&*!,:'\"-.01 \n<", max_size=12)
    | st.sampled_from([text for text in HOSTILE.values() if len(text) < 1000])
    | trees(YAML_LEAVES).map(lambda value: yaml.safe_dump(value, default_flow_style=True))
    | st.text(max_size=8),
)
def test_any_assignment(key, value):
    with value_or_sentence():
        load_config(assignments=[f"{key}={value}"])


# Genotypes and spaces


GENOTYPES = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(["gap", "fc", "", "..", "/", "\n", "conv3x3", "\u0660", "a\0", "x" * 5000]),
        min_size=5,
        max_size=7,
    ).map("-".join),
    st.integers(1, 300).map(lambda count: "+".join([str(PUBLISHED)] * count)),
    st.sampled_from([None, 3, b"gap", [PUBLISHED], "-" * 100_000, "+" * 100_000, "x" * 10**6]),
)


@fuzz(120)
@given(text=GENOTYPES)
def test_any_text_as_a_genotype(text):
    with value_or_sentence():
        genotype = Genotype.parse(text)
        assert Genotype.parse(str(genotype)) == genotype
        assert not set(str(genotype)) & set("/\\\0\n. ")
    for name in space_names():
        with value_or_sentence():
            SearchSpace.load(name).parse(text)


BUNDLED_SPACES = [
    yaml.safe_load(file.read_text(encoding="utf-8"))
    for file in (Path(__file__).parents[3] / "search_spaces" / "definitions").glob("*.yaml")
]
OPERATION_FILES = st.sampled_from(
    ["../x.py", "/etc/hostname", "gone.py", ".", "..", "/dev/zero", "a\0b", "\ud800", "x" * 5000]
)


@st.composite
def spaces(draw: st.DrawFn) -> Any:
    content = draw(st.sampled_from(BUNDLED_SPACES))
    if draw(st.booleans()):
        stages = draw(st.integers(-1, 200) | LEAVES)
        content = {**content, "scope": "stage", "stages": stages}
    if draw(st.booleans()):
        content = {**content, "operations": draw(st.lists(OPERATION_FILES, max_size=2))}
    return draw(st.just(content) | mutations(content, trees(LEAVES)))


@fuzz(150)
@given(content=spaces().map(as_yaml))
def test_a_space_file_with_anything_in_it(tmp_path, content):
    path = tmp_path / "my.yaml"
    path.write_bytes(content)
    with value_or_sentence():
        space = SearchSpace.load(path)
        assert space.parse(space[space.size - 1]) == space[-1]
        json.dumps(describe_space(space))
        f"{space.size:,}"


def test_sets_of_many_operations_are_read_or_refused_soon(tmp_path):
    path = tmp_path / "my.yaml"
    definition = BUNDLED_SPACES[0]
    for count, shared in ((10, False), (2000, False), (15_000, False), (2000, True)):
        names = [f"op{i}" for i in range(count)]
        sets = {name: names if shared else list(names) for name in definition["sets"]}
        path.write_text(yaml.safe_dump({**definition, "sets": sets}))
        with value_or_sentence():
            SearchSpace.load(path)


# Setups


SMALL = {"backbone": {"name": "resnet8", "options": {"width": 2}}, "proxy": {"warm_host": None}}
PARTS = {
    "space": st.sampled_from(["sase", "sase_tiny", "/dev/zero", "a\nb.yaml", "x" * 300 + ".yaml"]),
    "strategies": st.lists(
        st.sampled_from(["random", "tpe", "asha", "darts", "darts-2nd", "grid", "a/b", ""]),
        min_size=1,
        max_size=3,
    ),
    "strategy_options": st.dictionaries(
        st.sampled_from(["random", "darts"]), st.dictionaries(st.text(max_size=3), LEAVES)
    ),
    "baselines": st.lists(st.sampled_from(["none", "se", "../x", "\n"]), max_size=2),
    "budget": st.integers(1, 10**15),
    "data": st.fixed_dictionaries(
        {},
        optional={
            "root": ODD,
            "train_size": st.integers(2, 3000),
            "validation_size": st.integers(1, 3000),
            "split_seed": st.integers(0, 2**32 - 1),
            "options": st.dictionaries(st.sampled_from(["image_size", "seed", "download"]), LEAVES),
        },
    ),
    "dataset": st.sampled_from(["digits", "digits", "imagefolder", "a/../b"]),
    "backbone": st.fixed_dictionaries(
        {
            "name": st.sampled_from(["resnet8", "resnet9", "convnext_tiny", "../x", "timm:no/net"]),
            "options": st.dictionaries(
                st.sampled_from(["width", "weights", "patch"]),
                LEAVES.filter(lambda v: not isinstance(v, (int, float)) or abs(v) < 20),
                min_size=1,
            ),
        }
    ),
    "final": st.fixed_dictionaries({"train_size": st.integers(2, 3000)}),
    "proxy": st.fixed_dictionaries(
        {"epochs": st.integers(1, 10**15), "batch_size": st.integers(2, 10**15)}
    ),
    "reliability": ODD,
}


@fuzz(30)
@given(
    changes=st.sets(st.sampled_from(list(PARTS)), min_size=1, max_size=3).flatmap(
        lambda names: st.fixed_dictionaries({name: PARTS[name] for name in sorted(names)})
    )
)
def test_the_parts_of_any_configuration(changes, tmp_path, monkeypatch):
    monkeypatch.delenv("SASE_DATA", raising=False)
    with value_or_sentence():
        Experiment.of(load_config({**SMALL, **changes}))


@pytest.mark.parametrize("dataset", ["imagefolder", "cluttered_fashion_mnist", "cifar10"])
@pytest.mark.parametrize("value", ["x", 0.5, True, [1], {"a": 1}, None, -1])
def test_options_of_a_data_set_of_any_type(dataset, value, tmp_path):
    for option in ("image_size", "seed", "download"):
        data = {"root": str(tmp_path), "options": {option: value}}
        if option == "download" and value is True:
            continue
        with a_sentence():
            Experiment.of(load_config(SMALL, {"dataset": dataset, "data": data}))


# Tables


@pytest.fixture(scope="module")
def table_bytes(tmp_path_factory, made_up_table) -> bytes:
    path = tmp_path_factory.mktemp("tables") / "whole.parquet"
    write_parquet(path, made_up_table.rows, made_up_table.about)
    return path.read_bytes()


def write_parquet(path: Path, rows: pd.DataFrame, about: Any) -> None:
    table = pa.Table.from_pandas(rows, preserve_index=False)
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"sase_ray": text})
    pq.write_table(table, path)


@fuzz(100)
@given(data=st.data())
def test_a_damaged_table(table_bytes, tmp_path, data):
    damaged = bytearray(table_bytes)
    for _ in range(data.draw(st.integers(1, 4))):
        # Most in what stands at the end: where the rows lie, of which types, and `about`.
        place = data.draw(
            st.integers(1, 6000).map(lambda back: max(0, len(damaged) - back))
            | st.integers(0, len(damaged) - 1)
        )
        damaged[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(0, len(damaged)))
    path = tmp_path / "table.parquet"
    path.write_bytes(damaged[:cut])
    with value_or_sentence():
        TabularBenchmark.load(path)


@fuzz(60)
@given(data=st.data())
def test_a_table_with_anything_told_beside_it(made_up_table, tmp_path, data):
    about = data.draw(
        mutations(made_up_table.about, trees(LEAVES))
        .filter(lambda value: isinstance(value, dict))
        .map(lambda value: json.dumps(value, default=str, skipkeys=True).encode())
        | st.sampled_from([b"", b"[", b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"9" * 5000])
    )
    path = tmp_path / "table.parquet"
    write_parquet(path, made_up_table.rows.head(100), about)
    with value_or_sentence():
        TabularBenchmark.load(path)


CELLS: dict[str, Any] = {
    "texts": "x",
    "missing": None,
    "infinite": np.inf,
    "no number": np.nan,
    "large": 2.0**62,
    "negative": -1,
    "dates": pd.Timestamp("2020-01-01", tz="Europe/Berlin"),
    "lists": [1, 2],
    "mappings": {"a": 1},
    "bytes": b"\xff",
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("some", [True, False])
def test_a_table_with_foreign_columns(made_up_table, tmp_path, cell, some):
    path = tmp_path / "table.parquet"
    for column in SCHEMA.names:
        rows = made_up_table.rows.copy()
        values = list(rows[column])
        if some and not isinstance(cell, (str, bytes, list, dict, pd.Timestamp)):
            values[len(values) // 2] = cell
        else:
            values = [cell] * len(values)
        rows[column] = pd.Series(values)
        with contextlib.suppress(pa.ArrowException):  # which writes no such column
            write_parquet(path, rows, made_up_table.about)
        if path.exists():
            with value_or_sentence():
                TabularBenchmark.load(path)


@pytest.mark.parametrize(
    "change", [{"stages": 100}, {"stages": 10**9}, {"sets": {"channel_squeeze": ["gap"] * 10**5}}]
)
def test_a_table_that_claims_a_space_of_no_end(made_up_table, tmp_path, change):
    path = tmp_path / "table.parquet"
    about = {**made_up_table.about, "space": {**made_up_table.about["space"], **change}}
    write_parquet(path, made_up_table.rows, about)
    with a_sentence():
        TabularBenchmark.load(path)


def test_a_table_of_more_rows_than_memory_holds(made_up_table, tmp_path):
    path = tmp_path / "table.parquet"
    row = {"genotype": made_up_table.genotypes[0], "seed": 0, "epoch": 1, "diverged": False}
    rows = pd.DataFrame([row] * 500_000, columns=SCHEMA.names)
    table = pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False)
    about = json.dumps(made_up_table.about).encode()
    table = table.replace_schema_metadata({b"sase_ray": about})
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(21):
            writer.write_table(table)
    assert path.stat().st_size < 10**6
    with a_sentence("more than 10,000,000 rows"):
        TabularBenchmark.load(path)


KEY = protocol_key(load_config())
RELIABILITY = (
    "protocol,metric,epoch,icc,icc_low,icc_high,genotypes,seeds\n"
    f"{KEY},val_loss,3,0.5,0.4,0.6,24,4\n"
)


@fuzz(150)
@given(
    content=st.binary(max_size=60)
    | st.text('ab,"\n\r\t01.;\0', max_size=60).map(str.encode)
    | st.sampled_from([b"PK\x03\x04" + b"\0" * 40, b"\x1f\x8b\x08" + b"\0" * 40, b'"' * 1000])
    | st.tuples(st.integers(0, len(RELIABILITY)), st.integers(0, 20), st.text(max_size=8)).map(
        lambda t: (RELIABILITY[: t[0]] + t[2] + RELIABILITY[t[0] + t[1] :]).encode(
            "utf-8", "surrogatepass"
        )
    ),
    name=st.sampled_from(["reliability.csv", "r.csv.gz", "r.zip", "r.xz", "r.bz2", "r.tar", "r"]),
)
def test_a_study_with_anything_in_it(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    with value_or_sentence():
        row = measured_reliability(load_config(overrides={"reliability": str(path)}))
        assert row is None or all(isinstance(row[c], float) for c in ("icc", "icc_low", "icc_high"))
    path.unlink()


def test_every_preset_and_definition_is_far_from_the_bounds():
    root = Path(__file__).parents[3]
    for path in [*root.glob("sase_ray/protocols/*.yaml"), *root.glob("search_spaces/*/*.yaml")]:
        assert path.stat().st_size < 10_000
    assert len(presets()) >= 4
