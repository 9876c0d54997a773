"""Configurations from presets, files, overrides and assignments, and what is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sase_ray.config import Config, load_config
from sase_ray.protocols import presets
from sase_ray.strategies.catalogue import make_strategy
from sase_ray.strategies.one_shot.darts_2nd import SecondOrderAlgorithm
from search_spaces.errors import UserError


@pytest.fixture
def write(tmp_path):
    def write_file(text):
        path = tmp_path / "my.yaml"
        path.write_text(text)
        return path

    return write_file


def test_later_sources_win(write):
    path = write("{dataset: digits, budget: 2, proxy: {epochs: 2, batch_size: 22}, seeds: 2}")
    preset = load_config()
    assert preset.backbone.name == "resnet8", "the preset of digits, not the default"
    assert preset.proxy.warm_host is not None
    with_file = load_config(path)
    assert (with_file.budget, with_file.proxy.epochs, with_file.seeds) == (2, 2, 2)
    assert with_file.backbone == preset.backbone
    overridden = load_config(path, {"proxy": {"epochs": 3}, "seeds": 3})
    assert (overridden.budget, overridden.proxy.epochs, overridden.seeds) == (2, 3, 3)
    assert overridden.proxy.batch_size == 22
    assigned = load_config(path, {"proxy": {"epochs": 3}, "seeds": 3}, ["seeds=4", "seeds=5"])
    assert (assigned.proxy.epochs, assigned.seeds) == (3, 5)


def test_the_preset_is_that_of_the_data_set_the_last_source_names(write):
    path = write("dataset: digits")
    config = load_config(path, assignments=["dataset=fashion_mnist"])
    assert config.data.train_size == 10_000
    assert config.budget == 1_000_000


@pytest.mark.parametrize("dataset", presets())
def test_every_preset_loads_and_is_unlike_the_defaults(dataset):
    config = load_config(overrides={"dataset": dataset})
    assert config.dataset == dataset
    assert config.budget != Config().budget


def test_a_configuration_is_overridden_key_by_key():
    config = load_config(overrides={"proxy": {"lr": 0.25, "epochs": 4}})
    again = load_config(config, {"proxy": {"epochs": 5}})
    assert (again.proxy.lr, again.proxy.epochs) == (0.25, 5)


@pytest.mark.parametrize("as_configuration", [True, False])
def test_another_backbone_does_not_inherit_options_that_it_may_not_take(as_configuration):
    given = {"backbone": {"name": "resnet18"}}
    base = load_config() if as_configuration else None
    assert load_config().backbone.options == {"width": 8}
    assert load_config(base, given).backbone.options == {}
    assert load_config(base, {"backbone": {"name": "resnet8"}}).backbone.options == {"width": 8}
    own = {"backbone": {"name": "resnet20", "options": {"width": 4}}}
    assert load_config(base, own).backbone.options == {"width": 4}


@pytest.mark.parametrize(
    ("assignment", "key", "nearest"),
    [
        ("dataste=digits", "dataste", "dataset"),
        ("proxy.epoch=3", "proxy.epoch", "epochs"),
        ("final.sedes=3", "final.sedes", "seeds"),
        ("data.train_sise=3", "data.train_sise", "train_size"),
        ("resources.gpus_per_trail=1", "resources.gpus_per_trail", "gpus_per_trial"),
        ("backbone.nam=x", "backbone.nam", "name"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(assignment, key, nearest, write):
    with pytest.raises(UserError, match=f"unknown key '{key}': did you mean '{nearest}'"):
        load_config(assignments=[assignment])
    nested = yaml.safe_load(assignment.partition("=")[2])
    for part in reversed(key.split(".")):
        nested = {part: nested}
    path = write(yaml.safe_dump(nested))
    with pytest.raises(UserError, match=rf"my\.yaml: unknown key '{key}': .*'{nearest}'"):
        load_config(path)


@pytest.mark.parametrize(
    "assignment",
    [
        "seeds=many",
        "seeds=0",
        "seeds=yes",
        "seeds=1.5",
        "seeds=2020-13-45",
        "budget=0",
        "budget=.inf",
        "strategies=random",
        "strategies=[]",
        "proxy=5",
        "proxy.epochs=[1]",
        "proxy.optimizer=adam",
        "metric=accuracy",
        "data.options=3",
        "data.split_seed=-1",
        "data.split_seed=99999999999999999999999",
        "resources.cpus_per_trial=0",
        "resources.cpus_per_trial=.inf",
        "resources.gpus_per_trial=-1",
        "resources.gpus_per_trial=1.5",
        "run=../elsewhere",
        "run=a/b",
        "results=",
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_source(assignment):
    with pytest.raises(UserError) as caught:
        load_config(assignments=[assignment])
    message = str(caught.value)
    assert message.startswith(f"--set {assignment}: ")
    assert "\n" not in message
    if "2020" not in assignment:
        assert assignment.partition("=")[0].split(".")[-1] in message.removeprefix("--set")


@pytest.mark.parametrize("text", ["seeds", "=3", " =3", "seeds=[1", "seeds='"])
def test_an_assignment_that_cannot_be_read_is_refused(text):
    with pytest.raises(UserError, match="--set"):
        load_config(assignments=[text])


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("budget=1e6", 1_000_000),
        ("budget=1_000", 1000),
        ("budget=2.5e3", 2500),
        ("budget='1e3'", 1000),
        ("budget=7.0", 7),
    ],
)
def test_whole_numbers_may_be_written_with_an_exponent(assignment, expected, write):
    assert load_config(assignments=[assignment]).budget == expected
    assert load_config(write(assignment.replace("=", ": "))).budget == expected


def test_an_assignment_reads_lists_mappings_and_texts_with_an_equals_sign():
    config = load_config(
        assignments=[
            "strategies=[darts, tpe]",
            "strategy_options={darts: {alpha_lr: 0.001}}",
            "strategy_options.tpe.startup_trials=4",
            "data.root=/data/a=b",
            "data.train_size=null",
        ]
    )
    assert config.strategies == ["darts", "tpe"]
    assert config.strategy_options == {"darts": {"alpha_lr": 0.001}, "tpe": {"startup_trials": 4}}
    assert config.data.root == "/data/a=b"
    assert config.data.train_size is None


def test_what_a_run_records_loads_back_whole(write):
    config = load_config(overrides={"backbone": {"name": "resnet8", "options": {}}, "seeds": 7})
    # As if the preset had changed since: nothing of it may come in.
    config = config.model_copy(
        update={"backbone": config.backbone.model_copy(update={"options": {}})}
    )
    recorded = {"config": config.model_dump(mode="json"), "versions": {}, "run": {}}
    path = write(yaml.safe_dump(recorded))
    assert load_config(path) == config
    assert load_config(path, {"run": "again"}).run == "again"
    with pytest.raises(UserError, match="expected keys and values"):
        load_config(write("{config: 3, versions: {}}"))


@pytest.mark.parametrize("content", ["[1, 2]", "just text", "a: [", "", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(content, write):
    with pytest.raises(UserError, match=r"my\.yaml"):
        load_config(write(content))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml"):
        load_config(tmp_path / "none.yaml")


KEYS = st.one_of(
    st.sampled_from([*Config.model_fields, "epochs", "lr", "name", "options", "root", "config"]),
    st.sampled_from(["versions", "seeds", "train_size", "digits", "darts"]),
    st.text(max_size=8),
    st.integers(),
    st.none(),
    st.booleans(),
    st.floats(),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.dates(),
    st.binary(max_size=4),
    st.sampled_from(["1e6", "digits", "cifar10", "random", "9" * 5000, 10**400]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


@pytest.mark.slow
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=st.dictionaries(KEYS, VALUES, max_size=4), through_file=st.booleans())
def test_any_values_give_a_configuration_or_a_user_error(values, through_file, tmp_path):
    try:
        if through_file:
            path = tmp_path / "fuzz.yaml"
            path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
            config = load_config(path)
        else:
            config = load_config(overrides=values)
    except UserError as error:
        message = str(error)
    else:
        message = ""
        assert isinstance(config, Config)
    assert "\n" not in message


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(max_size=30), st.from_regex(r"[a-z.]{1,12}=.{0,12}")))
def test_any_assignment_gives_a_configuration_or_a_user_error(text):
    with contextlib.suppress(UserError):
        load_config(assignments=[text])


def test_the_published_search_has_the_numbers_of_its_public_code():
    config = load_config("published")
    (name,) = config.strategies
    strategy = make_strategy(name, config.strategy_options[name])
    protocol = strategy.model_dump()
    assert protocol["batch_size"] == 128
    assert (protocol["lr"], protocol["lr_min"]) == (0.025, 1e-4)
    assert (protocol["momentum"], protocol["weight_decay"], protocol["clip"]) == (0.9, 5e-4, 5)
    assert (protocol["alpha_lr"], protocol["alpha_weight_decay"]) == (3e-4, 1e-3)
    assert protocol["alpha_betas"] == (0.5, 0.999)
    assert (config.dataset, config.space) == ("cifar10", "sase_published")
    assert config.backbone.name == "resnet20"
    assert config.backbone.options == {"width": 16}
    steps = SecondOrderAlgorithm.step_cost.steps(128, config.budget)
    batches = (50_000 - config.data.validation_size) // 2 // 128
    assert (batches, steps) == (195, 100 * 195)


def test_a_file_comes_before_a_bundled_configuration_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("published").budget == 12_480_000
    Path("published").write_text("budget: 7")
    assert load_config(Path("published")).budget == 7
