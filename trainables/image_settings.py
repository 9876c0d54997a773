"""Settings of the images of a configuration, which are read without torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from search_spaces.user_paths import UserPath, expand_in


def _whole_number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"input should be a number, not {str(value).lower()}")
    # 1e6 is a natural way to write a budget of a million, also as text on the command line.
    if isinstance(value, str | float):
        try:
            number = float(value)
        except ValueError:
            return value
        if number.is_integer():
            return int(number)
    return value


WholeNumber = Annotated[int, BeforeValidator(_whole_number), Field(le=10**15)]
"""An integer of a configuration, which may be written 1e6; at most 10^15."""

Options = Annotated[dict[str, JsonValue], AfterValidator(expand_in)]
"""Options of a part, which checks them itself: plain values, as in a run's config.yaml.

Texts that begin with `~` or `$` are paths.
"""


class ImageSettings(BaseModel):
    """Images of a data set: its folder, how many of them, their size and channels."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    root: UserPath | None = Field(default=None, description="folder; default $SASE_DATA")
    train_size: WholeNumber | None = Field(default=None, ge=2)
    validation_size: WholeNumber | None = Field(default=None, ge=1)
    split_seed: WholeNumber = Field(default=0, ge=0, lt=2**32)
    options: Options = Field(default_factory=dict, description="options of its loader")
    image_size: WholeNumber | None = Field(
        default=None, ge=1, le=4096, description="side of the squares that images are resized to"
    )
    channels: WholeNumber | None = Field(
        default=None,
        ge=1,
        le=3,
        description="3 copies grey images to three channels, 1 averages colours; default as it is",
    )


class SourceSettings(ImageSettings):
    """Images of the data set that a host is trained on before it meets others."""

    dataset: str = Field(description="name of the data set")


class NormalisationSettings(BaseModel):
    """Normalisation of a network's images: mean and deviation per channel, for pixels 0 to 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _same_channels(self) -> NormalisationSettings:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} values, std {len(self.std)}")
        return self
