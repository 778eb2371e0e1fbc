"""Around every request: its id, its line in the log, its metrics, and an answer if the server fails."""

import logging
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backends.server.errors import ServiceError
from backends.server.identifiers import new_id
from backends.server.metrics import Metrics

_log = logging.getLogger("backends.server.requests")
_CLIENT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Observe:
    """The outermost middleware. Neither keys nor contents reach the log."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on; a failure inside is logged and answered with 500."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _CLIENT_ID.fullmatch(given) else new_id("req_")
        status = 0  # of a client that left before it was answered

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception as error:
            if not isinstance(error, ServiceError):
                _log.exception("%s failed", request_id)
                error = ServiceError(500, "The server had an error.", kind="server_error")
            if status == 0:
                await error.response()(scope, receive, observed)
        finally:
            self._record(scope, status, time.monotonic() - started, request_id)

    def _record(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        method = scope["method"]
        # A route's pattern: neither a model's name nor a made-up path becomes a label.
        route = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.requests.labels(method, route, status).inc()
        self._metrics.seconds.labels(method, route).observe(seconds)
        _log.info(
            "%s %s %d %.0f ms %s",
            method,
            repr(scope["path"])[1:-1],
            status,
            seconds * 1000,
            request_id,
        )
