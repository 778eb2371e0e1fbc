"""The lines of a batch's files: requests in, answers out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from openai.types import BatchError
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from backends.schema import explain

MOST_REQUESTS = 50_000


class BatchRequest(BaseModel):
    """One request of the input file."""

    model_config = ConfigDict(strict=True, frozen=True)

    custom_id: str
    method: Literal["POST"]
    url: str
    body: dict[str, Any]


class Answer(BaseModel):
    """What a request was answered."""

    status_code: int
    request_id: str
    body: Any


class Failure(BaseModel):
    """Why a request has no answer."""

    code: str
    message: str


class BatchAnswer(BaseModel):
    """One line of the output file or of the error file."""

    id: str
    custom_id: str
    response: Answer | None = None
    error: Failure | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it belongs in the output file."""
        return self.response is not None and self.response.status_code < 400


ANSWER = TypeAdapter(BatchAnswer)


class InvalidBatch(Exception):  # noqa: N818 - a batch's end, not a bug
    """Input that can't be worked on; `errors` as the wire has them."""

    def __init__(self, errors: list[BatchError]) -> None:
        super().__init__(errors[0].message)
        self.errors = errors


def read_requests(path: Path, endpoint: str) -> list[BatchRequest]:
    """The requests of an input file.

    Raises:
        InvalidBatch: lines that are no requests for this endpoint, an id twice, or too many of them.
    """
    requests: dict[str, BatchRequest] = {}
    errors: list[BatchError] = []
    for number, request in _parsed(path):
        if isinstance(request, str):
            errors.append(BatchError(code="invalid_json_line", message=request, line=number))
        elif request.url != endpoint:
            message = f"The url must be the batch's endpoint, {endpoint}."
            errors.append(
                BatchError(code="mismatched_url", message=message, line=number, param="url")
            )
        elif request.custom_id in requests:
            message = f"The custom_id {request.custom_id!r} stands on an earlier line as well."
            errors.append(
                BatchError(
                    code="duplicate_custom_id", message=message, line=number, param="custom_id"
                )
            )
        else:
            requests[request.custom_id] = request
    if not requests and not errors:
        errors = [BatchError(code="empty_file", message="The input file has no requests.")]
    if len(requests) > MOST_REQUESTS:
        message = f"The input file has more than {MOST_REQUESTS} requests."
        errors = [BatchError(code="too_many_requests", message=message)]
    if errors:
        raise InvalidBatch(errors[:100])
    return list(requests.values())


def _parsed(path: Path) -> Iterator[tuple[int, BatchRequest | str]]:
    """Every line's number and its request, or what is wrong with it."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield number, BatchRequest.model_validate_json(line)
            except ValidationError as error:
                yield number, explain(error)
