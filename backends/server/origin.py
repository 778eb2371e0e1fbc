"""Whom a request comes from, as browsers tell it.

Without a key, listening on this machine alone is what keeps others out, and a page in this machine's
browser would get around that: by a form sent here, or by a name of its own that leads to 127.0.0.1.
https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Origin
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from backends.server.auth import is_loopback
from backends.server.errors import ServiceError


class RefuseForeign:
    """Refuses requests of other sites' pages, and with `loopback_only` those to any other name (403)."""

    def __init__(self, app: ASGIApp, *, loopback_only: bool) -> None:
        self._app = app
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers 403."""
        if scope["type"] == "http" and (problem := self._problem(Headers(scope=scope))):
            await ServiceError(403, problem).response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _problem(self, headers: Headers) -> str | None:
        host = _host(f"//{headers.get('host', '')}")
        if self._loopback_only and not is_loopback(host):
            return "Without a key, this server answers to 127.0.0.1 and localhost only."
        origin = headers.get("origin")
        if origin is not None and _host(origin) != host:
            return "Pages of other sites may not use this server."
        return None


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
