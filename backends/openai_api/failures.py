"""The one seam at which the SDK's errors become ours: what went wrong, and whether to try again."""

import json
from dataclasses import dataclass
from datetime import date
from enum import Enum, auto

import httpx2
import openai

from backends.errors import ModelError, ServiceError


class Kind(Enum):
    """What a failed request means for whoever sent it."""

    UNSENT = auto()
    """The service was not reached: nothing happened there."""
    UNKNOWN = auto()
    """No answer, or a failure at the service: what was asked for may have happened or not."""
    LIMITED = auto()
    """Refused for now by a rate limit."""
    CAPPED = auto()
    """Refused until the day's or the organisation's number of jobs allows another."""
    NOT_READY = auto()
    """Refused because a file is still being processed."""
    NOT_FOUND = auto()
    """There is no such thing, or not yet."""
    REFUSED = auto()
    """Refused for good."""


TRANSIENT = frozenset({Kind.UNSENT, Kind.UNKNOWN, Kind.LIMITED})


@dataclass(frozen=True)
class Failure:
    """A failed request: its kind, a line about it, and how long the service asks to wait (seconds).

    `code` is the service's own word for it, "" where it has none; `status` is that of HTTP. `unreadable`
    where an answer came: the work behind it was done, and is perhaps billed, at each try.
    """

    kind: Kind
    message: str
    retry_after: float | None = None
    code: str = ""
    status: int | None = None
    unreadable: bool = False

    @property
    def transient(self) -> bool:
        """Whether the same request may well succeed later."""
        return self.kind in TRANSIENT

    def as_error(self, what: str, model: str | None = None) -> ServiceError | ModelError:
        """As an error for the user; `what` is what was being done, with `model` if with one."""
        if self.code in CONTENT_CODES:
            return ContentRefused(self.message)
        if model is not None and self.is_about(model):
            return ModelError(f"the model {model} is not at the service: {self.message}")
        return ServiceError(f"{what}: {self.message}")

    def is_about(self, model: str) -> bool:
        """Whether it is the model that is not there; not all services have a code for that."""
        named = self.kind is Kind.NOT_FOUND and model in self.message
        return named or self.code == "model_not_found"


class ContentRefused(ServiceError):  # noqa: N818 - of one request
    """A service will not answer what a request says; others may be answered."""


CONTENT_CODES = frozenset({"content_filter", "content_policy_violation", "invalid_prompt"})
"""The services' words for that; an answer's `finish_reason` has the first as well."""


class CutOffError(Exception):
    """An answer broke off on its way; its JSON does not end."""


def check_cut_off(content: bytes | str) -> None:
    """Raises CutOffError for what is no JSON but begins like an answer; a page or a word does not."""
    if content.lstrip()[:1] not in (b"", "", b"{", "{"):
        return
    try:
        json.loads(content)
    except ValueError as error:
        raise CutOffError from error


LAST_DAY_OF_TRAINING = date(2027, 1, 6)
"""Of OpenAI itself, for everyone; for organisations without recent jobs it has passed."""

INSTEAD = (
    "use --backend local, or by openai.base_url another provider or your own `kaarel-bet serve`"
)
NO_MORE_TRAINING = (
    "the service takes no fine-tuning jobs from this organisation any more (OpenAI closes fine-tuning "
    f"to everyone on {LAST_DAY_OF_TRAINING}); {INSTEAD}"
)

_REFUSALS = {
    "training_not_available": NO_MORE_TRAINING,
    "insufficient_quota": "the account has no credit left, or its spending limit is reached",
    "billing_hard_limit_reached": "the account's spending limit is reached",
}
_CAPS = (
    "daily_rate_limit_exceeded",
    "concurrent_jobs_limit",
    "max_concurrent_jobs",
    "too_many_jobs",
)


def failure(error: Exception) -> Failure:
    """What an error of the SDK means.

    Raises:
        Exception: the error itself, if it is not of the SDK or of what a broken answer causes in it.
    """
    if isinstance(error, openai.APIStatusError):
        return _of_status(error)
    if isinstance(error, openai.APIConnectionError):
        unsent = isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout)
        kind = Kind.UNSENT if unsent else Kind.UNKNOWN
        return Failure(kind, _connection_message(error))
    if isinstance(
        error,
        CutOffError | openai.APIResponseValidationError | json.JSONDecodeError | UnicodeDecodeError,
    ):
        return Failure(Kind.UNKNOWN, _unreadable_message(error), unreadable=True)
    if isinstance(error, openai.OpenAIError):
        return Failure(Kind.REFUSED, _one_line(str(error)))
    raise error


def _of_status(error: openai.APIStatusError) -> Failure:
    code = error.code or error.type or ""
    body = error.body if isinstance(error.body, dict) else {}
    message = f"{_one_line(str(body.get('message') or error.message))} (HTTP {error.status_code})"
    if refusal := _REFUSALS.get(code):
        message = f"{refusal} ({code})"
        return Failure(Kind.REFUSED, message, code=code, status=error.status_code)
    kind = _kind(error.status_code, code, error.message)
    if error.status_code in (401, 403):
        message += "; check the key and openai.base_url"
    wait = retry_after(error.response.headers)
    return Failure(kind, message, wait, code, error.status_code)


def _kind(status: int, code: str, message: str) -> Kind:
    if code in _CAPS:
        return Kind.CAPPED
    if status == 429:
        return Kind.LIMITED
    if status >= 500 or status in (408, 409):
        return Kind.UNKNOWN
    if status == 404:
        return Kind.NOT_FOUND
    if status == 400 and _is_about_processing(code, message):
        return Kind.NOT_READY
    return Kind.REFUSED


def _is_about_processing(code: str, message: str) -> bool:
    words = message.lower()
    return code == "file_not_ready" or "still being processed" in words or "not ready" in words


def _connection_message(error: openai.APIConnectionError) -> str:
    if isinstance(error, openai.APITimeoutError):
        return "no answer in time"
    cause = str(error.__cause__ or error)
    return f"no connection to {error.request.url.host} ({_one_line(cause)})"


def _unreadable_message(error: Exception) -> str:
    try:
        if isinstance(error, json.JSONDecodeError):
            check_cut_off(error.doc)
    except CutOffError as cut_off:
        error = cut_off
    if isinstance(error, CutOffError | UnicodeDecodeError):
        return "the answer breaks off before its end"
    return "the answer is not in the wire format (is openai.base_url right?)"


def retry_after(headers: httpx2.Headers) -> float | None:
    """How long the service asks to wait, in seconds; None where it doesn't say (in a form we read)."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    return None


def _one_line(text: str) -> str:
    """The text without line breaks, keys, and the advice of a page of HTML."""
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:300]}..."
