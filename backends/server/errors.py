"""Errors as the service answers them: `{"error": {"message", "type", "param", "code"}}`.

Source: https://platform.openai.com/docs/guides/error-codes and the `openai` package's exceptions, which
are chosen by the HTTP status.
"""

import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from backends.errors import DataError, DeviceMemoryError, KaarelBetError, ModelError
from backends.server.bodies import Refused

# Of a problem's place: where in the request it is, and which of several allowed types was tried.
_IN_BETWEEN = re.compile(r"body|query|path|str|int|float|constrained-.*|function-.*|.*\[.*\].*")


class ServiceError(Exception):
    """Ends a request with this status and error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(message, kind, param, code)

    def response(self) -> JSONResponse:
        """The answer to send."""
        return JSONResponse(self.body, self.status)


def error_body(
    message: str, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The body of an error's answer."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ServiceError:
    """A request that can't be met as it stands (400)."""
    return ServiceError(400, message, param=param, code=code)


def no_such_model(name: str) -> ServiceError:
    """A model that is not served here (404)."""
    message = f"The model `{name}` does not exist or you do not have access to it."
    return ServiceError(404, message, param="model", code="model_not_found")


def not_found(kind: str, identifier: str) -> ServiceError:
    """An object that is not in the store (404)."""
    return ServiceError(404, f"No such {kind}: {identifier}", param="id")


def too_many(message: str) -> ServiceError:
    """A limit on how much may stand here at once (429); trying again later can help."""
    return ServiceError(429, message, kind="requests", code="rate_limit_exceeded")


def as_service_error(error: KaarelBetError) -> ServiceError:
    """An error of the backend: what a request asked for, or what the device could not do."""
    if isinstance(error, DeviceMemoryError):
        return ServiceError(503, str(error), kind="server_error", code="out_of_memory")
    if isinstance(error, ModelError):
        return ServiceError(404, str(error), param="model", code="model_not_found")
    if type(error) is KaarelBetError:  # not about what was asked
        return ServiceError(503, str(error), kind="server_error", code="closing")
    too_long = isinstance(error, DataError) and "longer than the model's context" in str(error)
    return invalid(str(error), code="context_length_exceeded" if too_long else None)


def install_error_handlers(app: FastAPI) -> None:
    """Makes every error of the app's routes the service's own shape."""

    @app.exception_handler(ServiceError)
    async def _(_request: Request, error: ServiceError) -> JSONResponse:
        return error.response()

    @app.exception_handler(KaarelBetError)
    async def _(_request: Request, error: KaarelBetError) -> JSONResponse:
        return as_service_error(error).response()

    @app.exception_handler(RequestValidationError)
    async def _(_request: Request, error: RequestValidationError) -> JSONResponse:
        return explained(error.errors()).response()

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> JSONResponse:
        message = str(error.detail)
        if error.status_code in (404, 405):
            message = f"Invalid URL ({request.method} {request.url.path})"
        return ServiceError(error.status_code, message).response()


def explained(problems: Any) -> ServiceError:  # noqa: ANN401 - pydantic's list of problems
    """The first problem of a failed validation, named by its path in the request."""
    # Of what is a list, that it is no text tells nothing.
    first = next((p for p in problems if p["type"] != "string_type"), problems[0])
    place = [str(part) for part in first["loc"] if not _IN_BETWEEN.fullmatch(str(part))]
    if first["type"] == "json_invalid":
        return invalid("We could not parse the JSON body of your request.")
    if first["type"] == "extra_forbidden":
        name = ".".join(place)
        return invalid(f"Unrecognized request argument supplied: {name}", name)
    error = first.get("ctx", {}).get("error")
    own = [error.param] if isinstance(error, Refused) else []
    param = ".".join([*place, *own]) or None
    if first["type"] == "missing":
        return invalid(
            f"Missing required parameter: '{param}'.", param, "missing_required_parameter"
        )
    what = first["msg"].removeprefix("Value error, ")
    return invalid(f"Invalid '{param}': {what}" if place else what, param, "invalid_value")
