"""The base of everything that is read from a file: strict, immutable, with errors of one line."""

import difflib
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, ValidationError


class Strict(BaseModel):
    """A record or a section of settings: unknown keys are refused and no value is coerced.

    Infinities survive a trip through JSON (as the strings "Infinity" and "-Infinity").
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=True, ser_json_inf_nan="strings"
    )


def explain(error: ValidationError) -> str:
    """The first problem of a failed validation as `where: what`."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """An ending for an error about an unknown word: the nearest known one, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known are: {', '.join(known)}"
