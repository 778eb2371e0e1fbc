"""Checks of a job's data, made before it is queued."""

from pathlib import Path

from pydantic import TypeAdapter

from backends.data import EXAMPLES, PreferenceExample, TrainingExample, TrainingMethod
from backends.errors import DataError
from backends.jsonl import parse
from backends.local.encoding import Encoder

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
    try:
        kind: TypeAdapter[TrainingExample | PreferenceExample] = EXAMPLES[method]
        examples = parse(path.read_bytes(), kind, where="line")
        for number, example in enumerate(examples, start=1):
            _check(example, encoder, number)
    except DataError as error:
        message = f"The {words} is invalid: {error}"
        raise InvalidData(f"invalid_{param}", message, param) from error
    if len(examples) < minimum:
        message = f"The {words} has {len(examples)} example(s), but must have at least {minimum}."
        raise InvalidData("invalid_n_examples", message, param)
    return len(examples)


def _check(example: TrainingExample | PreferenceExample, encoder: Encoder, number: int) -> None:
    try:
        if isinstance(example, PreferenceExample):
            encoder.pair(example)
        else:
            encoder.example(example, "completion")
    except DataError as error:
        raise DataError(f"line {number}: {error}") from error
