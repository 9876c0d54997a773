"""Training protocols: everything that a training run depends on besides network, data and seed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainingProtocol(BaseModel):
    """How a network is trained. Frozen, so that two runs of one protocol are comparable."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=10, ge=1, description="passes over the training set")
    batch_size: int = Field(default=128, ge=2, description="images a step")
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
