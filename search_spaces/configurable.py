"""Catalogue entries that are classes with options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from search_spaces.catalogue import Catalogue
from search_spaces.errors import explain_validation_error


class Configurable(BaseModel):
    """Base class of the contracts whose implementations a catalogue holds.

    The fields of a subclass are its options. A subclass with a `name` of its own is in the
    catalogue of its contract.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    catalogue: ClassVar[Catalogue[Any]]
    name: ClassVar[str]
    summary: ClassVar[str]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Add the class to the catalogue."""
        super().__pydantic_init_subclass__(**kwargs)
        if "name" in vars(cls):
            cls.catalogue.enter(cls.name, cls, cls)


def configure(
    catalogue: Catalogue[Any], name: str, options: Mapping[str, Any] | None = None
) -> Any:
    """Build an entry of a catalogue with its options.

    Raises:
        UserError: There is no such entry or option, or a value is wrong; the message gives the
            nearest name.
    """
    kind = catalogue.find(name)
    try:
        return kind.model_validate(dict(options or {}))
    except ValidationError as error:
        where = f"options of {catalogue.what} {name!r}"
        raise explain_validation_error(error, kind, where) from None
