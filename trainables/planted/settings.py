"""Settings of planted modules, which are read without torch, as all configurations are."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class PlantSettings(BaseModel):
    """Choice and calibration of the module that all searches of one seed are to find."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    share: float = Field(
        default=0.003,
        ge=0,
        lt=1,
        description="of the variance of the teacher's logits: changing any one edge to another "
        "operation costs at least this; 0 plants without calibration",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="searches with seed s look for plant number seed + s"
    )
    given: bool = Field(
        default=True,
        description="networks begin with the plant's parameters in each operation that they share "
        "with it; false: at random, from where training rarely reaches them",
    )
    same: bool = Field(
        default=False, description="all searches look for plant number seed, as `reliability` needs"
    )
    draws: int = Field(
        default=100, ge=1, le=10_000, description="plants drawn at most until one is calibrated"
    )
