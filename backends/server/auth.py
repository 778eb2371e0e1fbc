"""The bearer key: who may ask. /health is open to whoever watches over the server."""

import hmac
import ipaddress
import os
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from backends.errors import SettingsError
from backends.server.errors import ServiceError

KEY_VARIABLE = "KAAREL_BET_API_KEY"
_OPEN = ("/health",)


class RequireKey:
    """Refuses requests without the key (401)."""

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app = app
        self._expected = None if key is None else f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers 401."""
        if scope["type"] == "http" and not self._may_pass(scope):
            message = "Incorrect API key provided, or none."
            error = ServiceError(401, message, code="invalid_api_key")
            await error.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        if self._expected is None or scope["path"] in _OPEN:
            return True
        given = Headers(scope=scope).get("authorization", "")
        return hmac.compare_digest(given.encode(), self._expected)


def read_key(file: Path | None) -> str | None:
    """The key of the file, else of the environment, else none.

    Raises:
        SettingsError: the file can't be read or has no key in it.
    """
    if file is None:
        return os.environ.get(KEY_VARIABLE, "").strip() or None
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: the key can't be read from it") from error
    if not key:
        raise SettingsError(f"{file}: there is no key in it")
    return key


def check_exposure(host: str, key: str | None) -> None:
    """Lets a server without a key listen on this machine alone.

    Raises:
        SettingsError: the host is another and there is no key.
    """
    if key is None and not is_loopback(host):
        raise SettingsError(
            f"server.host: {host} is open to other machines, which takes a key: set {KEY_VARIABLE} "
            "or give --api-key-file"
        )


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
