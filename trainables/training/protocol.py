"""Training protocols: everything that a training depends on except network, data and seed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from search_spaces.user_paths import UserPath
from trainables.image_settings import SourceSettings, WholeNumber


class TrainingProtocol(BaseModel):
    """Training of a network. Frozen, so that two runs of one protocol are comparable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: WholeNumber = Field(default=10, ge=1, description="passes over the training set")
    batch_size: WholeNumber = Field(default=128, ge=2, description="images a step")
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.1, gt=0, description="peak learning rate")
    lr_min: float = Field(default=0.0, ge=0, description="learning rate at the end of the cosine")
    warmup: float = Field(default=0.0, ge=0, lt=1, description="share of steps with rising rate")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(default=5e-4, ge=0)
    clip: float | None = Field(default=5.0, gt=0, description="maximal gradient norm")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    augment: bool = Field(default=True, description="the data set's default augmentation")
    amp: bool = Field(default=True, description="bf16 autocast; on a GPU only")
    channels_last: bool = Field(default=True, description="on a GPU only")
    deterministic: bool = Field(default=False, description="deterministic algorithms only")
    cuda_graphs: bool = Field(
        default=True, description="replay training passes as CUDA graphs; on a GPU only"
    )

    @model_validator(mode="after")
    def _rate_falls(self) -> TrainingProtocol:
        if self.lr_min > self.lr:
            raise ValueError(f"lr_min {self.lr_min:g} is above lr {self.lr:g}")
        return self


PRETRAINED = "pretrained"
"""Name of the weights that a backbone's options load, such as torchvision's or timm's."""


class HostProtocol(TrainingProtocol):
    """Training of the host, once per run, before the data are shifted."""

    frozen: bool = Field(
        default=True,
        description="only attention modules are trained after the shift; the host keeps its "
        "weights, and its statistics are estimated from shifted images before each evaluation",
    )
    weights: UserPath | None = Field(
        default=None,
        min_length=1,
        description="file of a state dict, as `sase-ray train none` writes it; or 'pretrained': "
        "what the backbone loads, with a classifier trained by this protocol unless it is kept",
    )
    source: SourceSettings | None = Field(
        default=None,
        description="data set that the host is trained on, such as {dataset: digits, image_size: "
        "28}, in place of the unshifted images of the run's own",
    )
    classifier: Literal["kept", "new"] | None = Field(
        default=None,
        description="new: the last linear layer is drawn again, trained in the host on the run's "
        "images, and then trained with the modules, for all modules alike; by default it is kept "
        "where the source has as many classes",
    )
    seed: WholeNumber = Field(default=0, ge=0, lt=2**32, description="of weights and batches")


class ProxyProtocol(TrainingProtocol):
    """Training of a candidate during a search, so that its score distinguishes modules."""

    averaging: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay per step of the averaged weights, which are evaluated; 0: the last",
    )
    seeds: WholeNumber = Field(
        default=1,
        ge=1,
        le=100,
        description="networks trained in a trial, whose scores are averaged",
    )
    warm_host: TrainingProtocol | None = Field(
        default=None,
        description="train the host without attention by this protocol once a search, and insert "
        "the candidates into it; by default they train from scratch",
    )
    host_lr: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="learning rate of the warm host's own weights as a share of lr; 0 freezes them",
    )

    @model_validator(mode="after")
    def _host_is_warm(self) -> ProxyProtocol:
        if self.host_lr < 1 and self.warm_host is None:
            raise ValueError("host_lr slows a warm host down, and warm_host is not set")
        return self
