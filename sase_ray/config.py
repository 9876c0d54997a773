"""Configuration: what a comparison is made of, from presets, a YAML file and overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from sase_ray.protocols import FOLDER, bundled_or_own, presets
from search_spaces.backbones.registry import OWN_PREFIX
from search_spaces.errors import UserError, explain_validation_error, shorten, unknown_name
from search_spaces.user_files import parse_yaml, read_yaml_mapping
from search_spaces.user_paths import UserPath, expand, user_path
from trainables.image_settings import (
    ImageSettings,
    NormalisationSettings,
    Options,
    WholeNumber,
)
from trainables.planted.settings import PlantSettings
from trainables.shift_settings import Shift
from trainables.training.protocol import HostProtocol, ProxyProtocol, TrainingProtocol

if TYPE_CHECKING:
    from trainables.tasks.contract import Task

RANDOM_SEARCH = "random"
"""The strategy that the others are tested against."""

MAX_BUDGET = 10**15
"""Largest budget in training samples, enough for any protocol."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(ImageSettings):
    """Data set, its folder, and how much of it a search may see."""

    shift: Shift | None = Field(
        default=None,
        description="corruption of all images: {kinds: [contrast, noise], severity: 5, seed: 0}",
    )
    normalisation: NormalisationSettings | None = Field(
        default=None,
        description="that the host expects: {mean: [...], std: [...]}; default: of the images",
    )


class BackboneConfig(_Section):
    """The host network."""

    name: str = "resnet20"
    options: Options = Field(default_factory=dict, description="options of its builder, e.g. width")

    @field_validator("name")
    @classmethod
    def _path_of_own(cls, value: str) -> str:
        path = value.removeprefix(OWN_PREFIX)
        return value if path == value else f"{OWN_PREFIX}{expand(path)}"


class FinalConfig(TrainingProtocol):
    """The final protocol: training from scratch on train and validation, then one test."""

    seeds: WholeNumber = Field(
        default=1, ge=1, le=1000, description="final trainings of each search's genotype"
    )
    train_size: WholeNumber | None = Field(
        default=None, ge=2, description="validation images included; default all"
    )
    workers: WholeNumber = Field(
        default=1,
        ge=1,
        description="workers, a GPU each, that train one network together",
    )
    gradcam_images: WholeNumber = Field(
        default=8, ge=0, le=64, description="test images of which Grad-CAM is shown; 0 for none"
    )
    keep_weights: bool = Field(
        default=False, description="keep the trained networks of the searches' answers"
    )


class ResourcesConfig(_Section):
    """Resources that one trial reserves. Trials that fit run side by side."""

    address: str | None = Field(
        default=None, min_length=1, description="address of a Ray cluster; default a local one"
    )
    cpus_per_trial: float = Field(default=1.0, ge=0.0001, description="CPU cores, in 0.0001")
    gpus_per_trial: float | None = Field(
        default=None,
        ge=0,
        description="GPUs; default: as many trials per GPU as its memory holds, by an estimate",
    )
    gpus_per_supernet: float | None = Field(
        default=None,
        ge=0,
        description="GPUs of a one-shot search's trial; default also estimated",
    )
    trials_at_once: WholeNumber | None = Field(
        default=None,
        ge=1,
        description="trials of each search; default: an equal share of the cluster at the start. "
        "If given, all searches begin at once, and trials wait for room: an autoscaling cluster "
        "grows by them",
    )
    minutes_per_trial: float | None = Field(
        default=None, gt=0, description="minutes after which a trial fails"
    )

    @field_validator("gpus_per_trial", "gpus_per_supernet")
    @classmethod
    def _share_or_whole(cls, value: float | None) -> float | None:
        # These are the values that Ray accepts.
        if value and (value < 0.0001 or (value > 1 and value != int(value))):
            raise ValueError(f"{value:g} is neither a share of one GPU nor a whole number of them")
        return value


class Config(_Section):
    """Everything that a comparison depends on. `results/<run>/config.yaml` records it."""

    dataset: str = "digits"
    data: DataConfig = DataConfig()
    space: UserPath = Field(default="sase", description="name of a space, or path of a YAML file")
    backbone: BackboneConfig = BackboneConfig()
    strategies: list[str] = Field(default=["random", "tpe-asha", "darts"], min_length=1)
    strategy_options: dict[str, Options] = Field(default_factory=dict)
    baselines: list[str] = ["none", "se", "eca", "cbam"]
    budget: WholeNumber = Field(
        default=100_000, ge=1, le=MAX_BUDGET, description="training samples per search"
    )
    seeds: WholeNumber = Field(
        default=3, ge=1, le=10_000, description="independent repetitions of every search"
    )
    task: str = Field(default="classification", description="what networks are trained for")
    task_options: Options = Field(default_factory=dict)
    metric: str = Field(
        default="val_loss", description="what searches rank by: val_ and a metric of the task"
    )
    host: HostProtocol | None = Field(
        default=None,
        description="train the host once, before data.shift, and insert all candidates, "
        "supernets and final modules into it, in place of proxy.warm_host; by default they train "
        "from scratch",
    )
    planted: PlantSettings | None = Field(
        default=None,
        description="positive control: a known genotype with drawn parameters in the frozen host, "
        "whose logits all networks are trained to match (task distillation)",
    )
    proxy: ProxyProtocol = ProxyProtocol()
    final: FinalConfig = FinalConfig()
    reliability: UserPath | None = Field(
        default=None, description="folder of a `sase-ray reliability` run of this protocol"
    )
    agreement: UserPath | None = Field(
        default=None,
        min_length=1,
        description="path of a ground-truth table, or 'table' for the bundled one: one-shot "
        "searches score 100 of its genotypes, and Kendall's tau with its scores is reported",
    )
    warm_start_from: UserPath | None = Field(
        default=None,
        min_length=1,
        description="folder of a run; a strategy named X+Y is X whose first trials are what Y's "
        "search in that run ranked best, at the cost of both",
    )
    warm_start_genotypes: WholeNumber = Field(default=5, ge=1, le=1000)
    resources: ResourcesConfig = ResourcesConfig()
    results: UserPath = Field(
        default="results", min_length=1, description="folder in which the run's folder is made"
    )
    storage: UserPath | None = Field(
        default=None,
        min_length=1,
        description="folder or URI (s3://...) that all nodes reach, for checkpoints and a copy of "
        "the results; default: the run's folder",
    )
    run: str | None = Field(
        default=None,
        # Without a separator and a leading dot, so that the folder stays in `results`.
        pattern=r"\A[A-Za-z0-9][\w.-]*\z",
        max_length=100,
        description="name of the run's folder",
    )

    @model_validator(mode="before")
    @classmethod
    def _planted_is_distillation(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("planted") is not None and "task" not in given:
            return given | {"task": "distillation", "task_options": {"match": "logits"}}
        return given

    @model_validator(mode="after")
    def _task_has_metric(self) -> Config:
        allowed = self.make_task().reported("val")
        if self.metric not in allowed:
            raise unknown_name("metric", self.metric, allowed)
        return self

    def make_task(self) -> Task:
        """Return the task with its options.

        Raises:
            UserError: There is no such task, or it has no such option.
        """
        from trainables.tasks.catalogue import make_task  # torch is slow to import

        return make_task(self.task, self.task_options)


def load_config(
    path: str | Path | Config | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> Config:
    """Build a configuration; later sources win: preset of the data set, file, overrides, `--set`.

    Args:
        path: YAML file with the keys of `Config`, or the name of a bundled experiment, or the
            config.yaml of a run, which is used in full, without the preset; or a configuration or
            a mapping in place of a file.
        overrides: Nested values, e.g. ``{"proxy": {"epochs": 5}}``.
        assignments: Texts such as ``proxy.epochs=5``; the right side is read as YAML.

    Raises:
        UserError: A key is unknown (it is named, with the nearest), or a value is wrong.
    """
    sources: list[tuple[str, Mapping[str, Any]]] = []
    whole = False
    if isinstance(path, Config):
        sources.append(("configuration", path.model_dump(exclude_unset=True)))
    elif path is not None:
        where = "configuration" if isinstance(path, Mapping) else str(path)
        values: Mapping[str, Any] = (
            path
            if isinstance(path, Mapping)
            else read_yaml_mapping(bundled_or_own(user_path(path)), "configuration")
        )
        if values.keys() >= {"config", "versions"}:  # written by a run: repeat it
            recorded = values["config"]
            if not isinstance(recorded, dict):
                raise UserError(f"{where}: config: expected keys and values")
            if not isinstance(path, Mapping):
                recorded = _with_kept_files(recorded, values.get("run"), user_path(path).parent)
            values, whole = recorded, True
        sources.append((where, values))
    if overrides:
        sources.append(("options", overrides))
    sources += [(_shown(text), parse_assignment(text)) for text in assignments]

    dataset: Any = Config().dataset
    for _, given in sources:
        dataset = given.get("dataset", dataset)
    merged: Mapping[str, Any] = {}
    if dataset in presets() and not whole:
        preset = FOLDER / f"{dataset}.yaml"
        merged = read_yaml_mapping(preset, "preset")
    for where, given in sources:
        merged = _merge(_without_old_options(merged, given), given)
        # Validated after each source, so that an error names the source it comes from.
        _validate(merged, where)
    return _validate(merged, "configuration")


def _with_kept_files(recorded: Mapping[str, Any], run: Any, folder: Path) -> Mapping[str, Any]:
    if not isinstance(run, Mapping) or "files" not in run:
        return recorded
    from trainables.persistence.kept_files import use_kept_files  # pyarrow is slow to import

    return use_kept_files(recorded, run["files"], folder)


def _validate(values: Mapping[str, Any], where: str) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise explain_validation_error(error, Config, where) from None


def _without_old_options(base: Mapping[str, Any], over: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out the options of a backbone that is replaced: the new one may not take them."""
    old, new = base.get("backbone"), over.get("backbone")
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return base
    if new.get("name", old.get("name")) == old.get("name"):
        return base
    return {**base, "backbone": {key: value for key, value in old.items() if key != "options"}}


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def parse_assignment(text: str) -> dict[str, Any]:
    """Read a text such as ``proxy.epochs=5`` into nested values.

    Raises:
        UserError: It is no such text.
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise UserError(f"{_shown(text)}: expected KEY=VALUE, such as proxy.epochs=5")
    parsed = parse_yaml(value, f"{_shown(text)}: the value")
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return parsed


def _shown(assignment: str) -> str:
    return f"--set {shorten(assignment)}"
