"""Middleware that makes a real server misbehave in chosen ways, and counts what it is asked."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Edit = Callable[[dict[str, Any]], None]


@dataclass
class Fault:
    """What happens to the next `times` requests of a method and path (one that starts so).

    With `status` the answer is that error, sent before the server has done anything, or `after` it has.
    With `cut` the server does its work and the connection breaks in the middle of the answer; with
    `halved` half the answer comes as if it were the whole. With `edit` the answer's JSON is changed.
    """

    method: str
    path: str
    times: int = 1
    status: int | None = None
    code: str = ""
    message: str = "made to fail"
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False
    cut: bool = False
    halved: bool = False
    edit: Edit | None = None

    def applies(self, method: str, path: str) -> bool:
        return self.times > 0 and method == self.method and path.startswith(self.path)


class Misbehaving:
    """Wraps an application: `RunningServer.wrap(misbehaving)`."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = list(faults)
        self.requests: Counter[str] = Counter()

    def count(self, method: str, path: str) -> int:
        """How many requests there were of a method and exact path."""
        return self.requests[f"{method} {path}"]

    def __call__(self, app: ASGIApp) -> ASGIApp:
        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            method, path = scope["method"], scope["path"]
            self.requests[f"{method} {path}"] += 1
            fault = next((f for f in self.faults if f.applies(method, path)), None)
            if fault is None:
                await app(scope, receive, send)
                return
            fault.times -= 1
            answer = _Answer()
            if fault.status is None or fault.after:
                await app(scope, receive, answer.take)
            await _send(fault, answer, send)

        return wrapped


class _Answer:
    """What the application sends, kept."""

    def __init__(self) -> None:
        self.status = 200
        self.body = b""

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message.get("body", b"")


async def _send(fault: Fault, answer: _Answer, send: Send) -> None:
    if fault.cut:
        await _start(send, answer.status, len(answer.body), {})
        await send({"type": "http.response.body", "body": answer.body[:5], "more_body": True})
        raise ConnectionError("cut")
    status, body = answer.status, answer.body
    if fault.status is not None:
        error = {"message": fault.message, "type": "made", "param": None, "code": fault.code}
        status, body = fault.status, json.dumps({"error": error}).encode()
    elif fault.halved:
        body = body[: len(body) // 2]
    elif fault.edit is not None:
        content = json.loads(body)
        fault.edit(content)
        body = json.dumps(content).encode()
    await _start(send, status, len(body), fault.headers)
    await send({"type": "http.response.body", "body": body})


async def _start(send: Send, status: int, length: int, headers: dict[str, str]) -> None:
    sent = {"content-type": "application/json", "content-length": str(length)} | headers
    pairs = [(name.encode(), value.encode()) for name, value in sent.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
