"""Checks of a job's data, made before it is queued."""

from pathlib import Path

from pydantic import ValidationError

from backends.data import EXAMPLES, PreferenceExample, TrainingMethod
from backends.errors import DataError
from backends.local.encoding import Encoder
from backends.schema import explain

MINIMUM_EXAMPLES = 10


class InvalidData(Exception):  # noqa: N818 - a job's end, not a bug
    """Data that can't be trained on: a job's error object."""

    def __init__(self, code: str, message: str, param: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def count_examples(
    path: Path, param: str, encoder: Encoder, method: TrainingMethod, *, minimum: int
) -> int:
    """How many examples the file has, in the format that the method learns from.

    `param` is what the request calls the file.

    Raises:
        InvalidData: a line is not an example that this model can learn from (the message has its
            number, from 1), or there are too few.
    """
    words = param.replace("_", " ")
    count = 0
    with path.open("rb") as lines:
        for count, line in enumerate(lines, start=1):
            try:
                _check(line, encoder, method)
            except DataError as error:
                message = f"The {words} is invalid: line {count}: {error}"
                raise InvalidData(f"invalid_{param}", message, param) from error
    if count < minimum:
        message = f"The {words} has {count} example(s), but must have at least {minimum}."
        raise InvalidData("invalid_n_examples", message, param)
    return count


def _check(line: bytes, encoder: Encoder, method: TrainingMethod) -> None:
    try:
        text = line.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text") from error
    try:
        example = EXAMPLES[method].validate_json(text)
    except ValidationError as error:
        raise DataError(explain(error)) from error
    if isinstance(example, PreferenceExample):
        encoder.pair(example)
    else:
        encoder.example(example, "completion")
