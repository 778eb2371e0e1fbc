"""The base of everything that is read from a file: strict, immutable, with errors of one line."""

import difflib
from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Strict(BaseModel):
    """A record or a section of settings: unknown keys are refused and no value is coerced."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        ser_json_inf_nan="strings",
    )


Number = Annotated[float, Field(strict=False, allow_inf_nan=True)]
"""A float that need not be finite: JSON has only strings ("Infinity", "NaN") for what is not."""

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]


def explain(error: ValidationError) -> str:
    """The first problem of a failed validation as `where: what`."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    if where and first["type"] not in ("missing", "value_error"):
        got = repr(first["input"])
        what += f" (got {got if len(got) <= 40 else got[:37] + '...'})"
    return f"{where}: {what}" if where else what


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """An ending for an error about an unknown word: the nearest known one, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known are: {', '.join(known)}"
