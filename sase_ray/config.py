"""Configuration: what a comparison is made of, from presets, a YAML file and overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from search_spaces.errors import UserError, explain_validation_error
from search_spaces.space import read_yaml_mapping
from trainables.protocol import TrainingProtocol


def _whole_number(value: Any) -> Any:
    # YAML 1.1 reads 1e6 as text, and a budget of a million is naturally written so.
    if isinstance(value, str | float):
        try:
            number = float(value)
        except ValueError:
            return value
        if number.is_integer():
            return int(number)
    return value


WholeNumber = Annotated[int, BeforeValidator(_whole_number)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """Where the data set lies and how much of it a search may see."""

    root: str | None = Field(default=None, description="folder; default $SASE_DATA")
    train_size: WholeNumber | None = Field(default=None, ge=2)
    validation_size: WholeNumber | None = Field(default=None, ge=1)
    split_seed: int = 0
    options: dict[str, Any] = Field(default_factory=dict, description="of the data set's loader")


class BackboneConfig(_Section):
    """The host network."""

    name: str = "resnet20"
    options: dict[str, Any] = Field(default_factory=dict, description="e.g. width")


class FinalConfig(TrainingProtocol):
    """The final protocol: training from scratch on train and validation, then one look at test."""

    seeds: int = Field(default=1, ge=1, description="final trainings of each search's genotype")
    train_size: WholeNumber | None = Field(
        default=None, ge=2, description="validation images included; default all"
    )


class ResourcesConfig(_Section):
    """What one trial holds. Everything that fits runs side by side."""

    address: str | None = Field(default=None, description="of a Ray cluster; else a local one")
    cpus_per_trial: float = Field(default=1.0, gt=0)
    gpus_per_trial: float | None = Field(
        default=None, ge=0, description="default: a quarter where the cluster has GPUs, else none"
    )


class Config(_Section):
    """Everything that a comparison depends on. `results/<run>/config.yaml` records it."""

    dataset: str = "digits"
    data: DataConfig = DataConfig()
    space: str = Field(default="sase", description="name of a space, or path of a YAML file")
    backbone: BackboneConfig = BackboneConfig()
    strategies: list[str] = Field(default=["random", "tpe-asha", "darts"], min_length=1)
    strategy_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    baselines: list[str] = ["none", "se", "eca", "cbam"]
    budget: WholeNumber = Field(default=100_000, ge=1, description="training samples a search")
    seeds: int = Field(default=3, ge=1, description="independent repetitions of every search")
    metric: Literal["val_loss", "val_accuracy"] = "val_loss"
    proxy: TrainingProtocol = TrainingProtocol()
    final: FinalConfig = FinalConfig()
    resources: ResourcesConfig = ResourcesConfig()
    results: str = Field(default="results", description="folder in which the run's folder is made")
    run: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9][\w.-]*$", description="name of the run's folder"
    )


def presets() -> tuple[str, ...]:
    """Return the data sets that have a preset protocol."""
    return tuple(sorted(path.stem for path in _preset_folder().glob("*.yaml")))


def load_config(
    path: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> Config:
    """Build a configuration; later sources win: preset of the data set, file, overrides, `--set`.

    Args:
        path: a YAML file with the keys of `Config`, or the config.yaml of a run.
        overrides: nested values, e.g. ``{"proxy": {"epochs": 5}}``.
        assignments: texts such as ``proxy.epochs=5``; the right side is read as YAML.

    Raises:
        UserError: an unknown key (named, with the nearest), or a wrong value.
    """
    sources: list[tuple[str, Mapping[str, Any]]] = []
    if path is not None:
        values: Mapping[str, Any] = read_yaml_mapping(Path(path), "configuration")
        if values.keys() >= {"config", "versions"}:  # written by a run: do the same again
            recorded = values["config"]
            values = recorded if isinstance(recorded, dict) else {}
        sources.append((str(path), values))
    if overrides:
        sources.append(("options", overrides))
    sources += [(f"--set {text}", _parse_assignment(text)) for text in assignments]

    dataset: Any = Config().dataset
    for _, given in sources:
        dataset = given.get("dataset", dataset)
    merged: Mapping[str, Any] = {}
    if dataset in presets():
        preset = _preset_folder() / f"{dataset}.yaml"
        merged = read_yaml_mapping(preset, "preset")
    for where, given in sources:
        merged = _merge(merged, given)
        # Validated after each source, so that an error names the source it comes from.
        _validate(merged, where)
    return _validate(merged, "configuration")


def _validate(values: Mapping[str, Any], where: str) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise explain_validation_error(error, Config, where) from None


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _parse_assignment(text: str) -> dict[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise UserError(f"--set {text}: expected KEY=VALUE, such as proxy.epochs=5")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {text}: the value is not valid YAML") from None
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return parsed


def _preset_folder() -> Path:
    return Path(str(resources.files("sase_ray"))) / "protocols"
