"""What all bodies of requests have in common."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator


class Refused(ValueError):  # noqa: N818 - a request's end, not a bug
    """A body is not valid as a whole, for which `param` is named."""

    def __init__(self, param: str, why: str) -> None:
        super().__init__(why)
        self.param = param


class Request(BaseModel):
    """A body of JSON, of which nothing is coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _of_characters(cls, body: object) -> object:
        """JSON can write what no text can have."""
        if place := _half_character(body):
            param = ".".join(place).encode("utf-8", "replace").decode()
            why = (
                f"Invalid '{param}': it has half of a surrogate pair (as \\ud83d is), no character"
            )
            raise Refused(param, why)
        return body


def _half_character(body: object) -> tuple[str, ...] | None:
    """The place of a text that can't be encoded."""
    waiting: list[tuple[tuple[str, ...], object]] = [((), body)]  # no recursion: it may be deep
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                return place
        inner: Iterable[tuple[object, object]] = ()
        if isinstance(value, dict):
            waiting += [((*place, key), key) for key in value]
            inner = value.items()
        elif isinstance(value, list):
            inner = enumerate(value)
        waiting += [((*place, str(k)), v) for k, v in inner if isinstance(v, str | dict | list)]
    return None


def _without_effect(value: object) -> None:
    if value not in (None, False, "", [], {}):
        raise ValueError("it is not offered here; leave it out")


NotOffered = Annotated[None, BeforeValidator(_without_effect)]
"""Of something that is not offered, the values that ask for nothing."""
