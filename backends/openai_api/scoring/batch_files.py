"""The Batch API's files: requests go in, answers and errors come out, joined by `custom_id`.

https://platform.openai.com/docs/guides/batch
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from backends.errors import ServiceError
from backends.openai_api.asking import Request
from backends.openai_api.failures import CONTENT_CODES, check_cut_off
from backends.schema import explain

MOST_REQUESTS = 50_000
MOST_BYTES = 200 * 1000**2

_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Line:
    """One request of a batch file. Its id is of its content, so that the same request is the same line."""

    id: str
    text: bytes

    @classmethod
    def of(cls, request: Request[Any]) -> "Line":
        """The request as the file has it."""
        body = json.dumps(request.body, sort_keys=True)
        identifier = hashlib.sha256(f"{request.path} {body}".encode()).hexdigest()[:32]
        whole = {"custom_id": identifier, "method": "POST", "url": f"/v1{request.path}"}
        return cls(identifier, json.dumps({**whole, "body": json.loads(body)}).encode() + b"\n")


def in_files(
    lines: Iterable[Line], most_requests: int = MOST_REQUESTS, most_bytes: int = MOST_BYTES
) -> Iterator[list[Line]]:
    """The lines, as few files as the service's limits allow."""
    file: list[Line] = []
    size = 0
    for line in lines:
        if file and (len(file) == most_requests or size + len(line.text) > most_bytes):
            yield file
            file, size = [], 0
        file.append(line)
        size += len(line.text)
    if file:
        yield file


class _Response(BaseModel):
    status_code: int
    body: Any


class Outcome(BaseModel):
    """A line of an output or error file."""

    custom_id: str
    response: _Response | None = None

    @property
    def answer(self) -> bytes | None:
        """The answer's body; None where there is none."""
        if self.response is None or self.response.status_code != 200:
            return None
        return json.dumps(self.response.body).encode()

    @property
    def is_refusal(self) -> bool:
        """Whether the service said no; what expired, or failed at the service, can be asked again."""
        return self.response is not None and not (
            self.response.status_code == 200 or self.response.status_code in _AGAIN
        )

    @property
    def reason(self) -> str:
        """What the service says of a refusal."""
        if self.response is None:
            return "no answer"
        return f"{self._error.get('message') or 'refused'} (HTTP {self.response.status_code})"

    @property
    def is_of_content(self) -> bool:
        """Whether it was refused for what it says."""
        return self._error.get("code") in CONTENT_CODES

    @property
    def _error(self) -> dict[str, Any]:
        body = self.response.body if self.response else None
        error = body.get("error") if isinstance(body, dict) else None
        return error if isinstance(error, dict) else {}


def outcomes(content: bytes, where: str) -> Iterator[Outcome]:
    """The lines of an output or error file.

    Raises:
        CutOffError: it broke off on its way.
        ServiceError: it is none.
    """
    for line in content.splitlines():
        if not line.strip():
            continue
        try:
            yield Outcome.model_validate_json(line)
        except ValidationError as error:
            check_cut_off(line)
            raise ServiceError(f"{where} is not in the wire format: {explain(error)}") from error
