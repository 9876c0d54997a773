"""Settings of a shift, which are read without torch, as all configurations are."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from search_spaces.errors import unknown_name

KINDS = (
    "noise",
    "blur",
    "contrast",
    "brightness",
    "fog",
    "pixelation",
    "occlusion",
    "clutter",
)
"""Names of the corruptions in `trainables.data.shift`."""


class Shift(BaseModel):
    """Corruption of all images of a data set: training, validation and test images alike."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kinds: tuple[str, ...] = Field(
        min_length=1, description=f"applied in this order: {', '.join(KINDS)}"
    )
    severity: float = Field(
        default=5.0, gt=0, le=5, description="each image's level is drawn between 0 and this"
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of all draws")

    @field_validator("kinds", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("kinds")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for kind in value:
            if kind not in KINDS:
                raise ValueError(str(unknown_name("kind of shift", kind, KINDS)))
        return value
