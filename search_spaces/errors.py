"""Errors that the user sees as one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from reprlib import Repr
from typing import get_args

from pydantic import BaseModel, ValidationError

_ABBREVIATED = Repr()
_ABBREVIATED.maxlevel = 2
_ABBREVIATED.maxstring = _ABBREVIATED.maxother = 100


class UserError(ValueError):
    """A mistake in the user's request. The message is one sentence that explains how to fix it.

    It is one line that any terminal shows as it is, whatever names and values of the user it
    contains: characters that cannot be printed are written as escapes, and long texts are cut.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message.splitlines())
        plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shorten(line, 2000))
        super().__init__(plain)


def shorten(text: str, longest: int = 200) -> str:
    """Return a text of the user as an error shows it: only the beginning, if it is long."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def unknown_name(what: str, name: object, allowed: Iterable[str]) -> UserError:
    """Build the error for a name that is not in a catalogue, with the nearest allowed name."""
    names = list(allowed)
    near = get_close_matches(str(name), names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown = shorten(str(name))
    return UserError(f"unknown {what} {shown!r}: {hint}allowed are {', '.join(names)}")


def explain_validation_error(
    error: ValidationError, model: type[BaseModel], where: str
) -> UserError:
    """Turn the first problem that pydantic found into one sentence naming the key.

    An unknown key is reported first: a misspelt key is the reason why another one is missing.

    Args:
        error: Error that `model.model_validate` raised.
        model: Model that was validated; its fields are the candidates for a misspelt key.
        where: File or option that the values came from; the sentence begins with it.
    """
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key = shorten(".".join(str(part) for part in problem["loc"]))
    if problem["type"] == "extra_forbidden":
        allowed = list(_fields_at(model, problem["loc"][:-1]))
        near = get_close_matches(str(problem["loc"][-1]), allowed, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(allowed)}"
        return UserError(f"{where}: unknown key {key!r}: {hint}")
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    names_value = problem["type"] in {"missing", "value_error"}
    got = "" if names_value else f" (got {_abbreviate(problem['input'])})"
    return UserError(f"{where}: {key}: {message}{got}" if key else f"{where}: {message}{got}")


def _abbreviate(value: object) -> str:
    """Return a value as at most one line: with YAML's aliases, small files can hold huge values."""
    try:
        return _ABBREVIATED.repr(value)
    except ValueError:  # an integer with more digits than Python prints
        return f"an {type(value).__name__} too long to show"


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> Iterable[str]:
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:
            return []
        candidates = (field.annotation, *get_args(field.annotation))
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return model.model_fields
