"""What a comparison says of its protocol's reliability, and where it knows it from."""

from __future__ import annotations

import shlex

import numpy as np
import pandas as pd
import pytest

from sase_ray.analysis import proxy_reliability, proxy_validity
from sase_ray.analysis.proxy_reliability import (
    BUNDLED,
    measured_reliability,
    protocol_key,
    reliability_sentences,
    repeated_scores,
)
from sase_ray.analysis.proxy_validity import final_key
from sase_ray.config import Config, load_config
from sase_ray.protocols import experiments, presets
from search_spaces.errors import UserError


def config(**values) -> Config:
    return Config.model_validate({"proxy": {"epochs": 3}, **values})


@pytest.mark.parametrize(
    "other",
    [
        {"budget": 5},
        {"strategies": ["tpe"]},
        {"seeds": 9},
        {"metric": "val_accuracy"},
        {"final": {"epochs": 77}},
        {"data": {"root": "/somewhere"}},
        {"resources": {"cpus_per_trial": 2}},
        {"proxy": {"epochs": 3, "cuda_graphs": True}},
    ],
)
def test_what_a_trial_does_not_depend_on_leaves_the_protocol_the_same(other) -> None:
    assert protocol_key(config()) == protocol_key(config(**other))


@pytest.mark.parametrize(("same", "more"), [(False, ["--set", "planted.same=true"]), (True, [])])
def test_the_command_that_is_recommended_can_be_pasted_and_has_what_a_plant_needs(
    same, more
) -> None:
    planted = load_config("planted_digits", {"planted": {"same": same}})
    for settings, expected in ((planted, more), (config(), [])):
        command = proxy_reliability.study_command(settings, "my runs/x", "validity", "--final", "2")
        assert shlex.split(command.strip("`")) == [
            *["sase-ray", "reliability", "--final", "2", "--config", "my runs/x/config.yaml"],
            *["--run", "x-validity", *expected],
        ]


def bundled_configurations():
    """Return every configuration that the package ships."""
    of_data = [load_config(None, {"dataset": name}) for name in presets()]
    return of_data + [load_config(name) for name in experiments()]


@pytest.mark.parametrize("graphs", [True, False])
def test_every_bundled_measurement_belongs_to_a_bundled_configuration(graphs) -> None:
    """A setting that is new must not make other protocols of them, or they are measured again."""
    protocols, finals = set(), set()
    for given in bundled_configurations():
        config = with_graphs(given, graphs)
        protocols.add(protocol_key(config))
        finals.add((protocol_key(config), final_key(config)))
        known = measured_reliability(config)
        if known is not None:
            assert known["epoch"] == config.proxy.epochs
            assert 0 < known["icc_low"] < known["icc"] < known["icc_high"] < 1
    assert set(pd.read_csv(BUNDLED)["protocol"]) <= protocols
    validities = pd.read_csv(proxy_validity.BUNDLED)[["protocol", "final_protocol"]]
    assert set(validities.itertuples(index=False, name=None)) <= finals


def with_graphs(config, graphs):
    """Return the configuration with or without CUDA graphs, wherever a protocol has them."""

    def changed(value):
        if isinstance(value, dict):
            value = {key: changed(one) for key, one in value.items()}
            return value | {"cuda_graphs": graphs} if "cuda_graphs" in value else value
        return value

    return Config.model_validate(changed(config.model_dump()))


@pytest.mark.parametrize(
    "other",
    [
        {"proxy": {"epochs": 4}},
        {"proxy": {"epochs": 3, "averaging": 0.9}},
        {"proxy": {"epochs": 3, "warm_host": {"epochs": 2}}},
        {"dataset": "fashion_mnist"},
        {"data": {"train_size": 100}},
        {"space": "sase_tiny"},
        {"backbone": {"name": "resnet8"}},
        {"backbone": {"options": {"width": 8}}},
    ],
)
def test_what_a_trial_depends_on_makes_another_protocol(other) -> None:
    assert protocol_key(config()) != protocol_key(config(**other))


def test_stages_and_operation_files_make_another_protocol(write_space) -> None:
    keys = set()
    for operations, extra in (
        ("", {}),
        ("# one", {}),
        ("# two", {}),
        ("", {"scope": "stage", "stages": 3}),
    ):
        keys.add(protocol_key(config(space=str(write_space({}, operations, **extra)))))
    assert len(keys) == 4


@pytest.fixture
def study(tmp_path):
    """The folder of a study, with rows of another protocol too."""
    rows = [
        {
            "protocol": key,
            "metric": metric,
            "epoch": epoch,
            "icc": icc,
            "icc_low": icc / 2,
            "icc_high": (1 + icc) / 2,
            "genotypes": 24,
            "seeds": 4,
        }
        for key in (protocol_key(config()), "other")
        for metric, icc in (("val_loss", 0.6), ("val_accuracy", 0.2))
        for epoch in (1, 3, 2)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "reliability.csv", index=False)
    return tmp_path


def test_a_study_is_found_by_its_folder_or_among_the_bundled(study, monkeypatch) -> None:
    row = measured_reliability(config(reliability=str(study)))
    assert (row["metric"], row["epoch"], row["icc"]) == ("val_loss", 3, 0.6)
    by_file = config(reliability=str(study / "reliability.csv"), metric="val_accuracy")
    assert measured_reliability(by_file)["icc"] == 0.2
    monkeypatch.setattr(proxy_reliability, "BUNDLED", study / "reliability.csv")
    assert measured_reliability(config())["icc"] == 0.6
    assert measured_reliability(config(space="sase_tiny")) is None


def test_a_study_of_another_protocol_or_no_study_is_refused(study) -> None:
    with pytest.raises(UserError, match="was measured for another protocol"):
        measured_reliability(config(reliability=str(study), space="sase_tiny"))
    with pytest.raises(UserError, match="is not a table of `sase-ray reliability`"):
        measured_reliability(config(reliability=str(study / "none")))
    (study / "reliability.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="is not a table of `sase-ray reliability`"):
        measured_reliability(config(reliability=str(study)))


def test_scores_on_the_way_are_of_the_genotypes_that_all_seeds_finished() -> None:
    trials = pd.DataFrame(
        [
            (g, s, status, 0.1 * g + s)
            for g, s, status in [
                *((g, s, "finished") for g in range(3) for s in range(2)),
                (3, 0, "finished"),
                (4, 0, "finished"),
                (4, 1, "stopped"),
            ]
        ],
        columns=["genotype", "seed", "status", "val_loss"],
    )
    scores = repeated_scores(trials, "val_loss")
    np.testing.assert_allclose(scores, [[0.0, 1.0], [0.1, 1.1], [0.2, 1.2]])
    assert repeated_scores(trials[trials["genotype"] > 0], "val_loss") is None
    assert repeated_scores(trials[trials["seed"] == 0], "val_loss") is None


def said(measured=None, scores=None) -> str:
    return " ".join(reliability_sentences(config(), measured, scores, "results/run"))


def test_it_is_said_in_words() -> None:
    row = pd.Series({"icc": 0.1, "icc_low": 0.0, "icc_high": 0.3, "genotypes": 24, "seeds": 4})
    assert "ICC of 0.10 (95% interval 0.00 to 0.30; 24 genotypes with 4 seeds each)" in said(row)
    assert "ranked mostly luck" in said(row)
    assert "may have ranked luck" in said(pd.Series({**row, "icc_high": 0.7}))
    good = said(pd.Series({**row, "icc": 0.6, "icc_high": 0.7}))
    assert "luck" not in good
    scores = np.array([[1.0, 1.1], [2.0, 2.2], [3.0, 2.9]])
    assert "from the 3 genotypes that 2 searches trained alike" in said(None, scores)
    assert (
        "`sase-ray reliability --config results/run/config.yaml --run run-reliability` does"
        in said()
    )
