"""A server of the wire format for the tests: over real HTTP on loopback, with a tiny model.

Training happens in a thread of this process, which takes less than a second; the process of its own has
tests of its own.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from openai import OpenAI
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob
from starlette.types import ASGIApp, Receive, Scope, Send

from backends.local.settings import LocalSettings, LoraSettings, TrainingSettings
from backends.local.training_process import train_here
from backends.server.app import create_app
from backends.server.service import Service
from backends.server.settings import ServerSettings
from backends.server.training import Train

Wrap = Callable[[ASGIApp], ASGIApp]
UNFINISHED = ("validating_files", "queued", "running")


class RunningServer:
    """A server that listens, and clients for it.

    `wrap` puts middleware around the application for the requests that follow, so that a test can make
    the server slow, broken or gone; `wrap(None)` takes it away.
    """

    def __init__(
        self, settings: ServerSettings, local: LocalSettings, *, api_key: str | None, train: Train
    ) -> None:
        self._app = create_app(settings, local, api_key=api_key, train=train)
        self._wrapped: ASGIApp = self._app
        self._key = api_key
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.url = f"{self.address}/v1"
        config = uvicorn.Config(
            self._serve,
            interface="asgi3",
            log_level="warning",
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )
        self._thread.start()
        until(lambda: self._server.started or not self._thread.is_alive())
        assert self._server.started

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Starting and stopping are not to be tampered with.
        app = self._app if scope["type"] == "lifespan" else self._wrapped
        await app(scope, receive, send)

    @property
    def parts(self) -> Service:
        """What the server is made of."""
        return self._app.state.service

    def wrap(self, middleware: Wrap | None) -> None:
        self._wrapped = self._app if middleware is None else middleware(self._app)

    def client(self, *, key: str | None = None, strict: bool = True) -> OpenAI:
        """The SDK, which refuses answers that are not as it declares them."""
        return OpenAI(
            base_url=self.url,
            api_key=key or self._key or "none",
            max_retries=0,
            _strict_response_validation=strict,
        )

    def raw(self) -> httpx.Client:
        """Plain HTTP, for what the SDK would not send."""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        return httpx.Client(base_url=self.address, headers=headers, timeout=60)

    def upload(self, lines: int | bytes = 10, name: str = "train.jsonl") -> FileObject:
        """A training file of so many examples, or with this content."""
        content = training_file(lines) if isinstance(lines, int) else lines
        return self.client().files.create(file=(name, content), purpose="fine-tune")

    def fine_tune(self, **arguments: Any) -> FineTuningJob:
        """A job that has succeeded; what is not given is small."""
        arguments = {"model": self.parts.models.base, "seed": 1} | arguments
        if "training_file" not in arguments:
            arguments["training_file"] = self.upload().id
        job = self.client().fine_tuning.jobs.create(**arguments)
        job = self.finished(job.id)
        assert job.status == "succeeded", job.error
        return job

    def finished(self, job_id: str) -> FineTuningJob:
        """The job once nothing more happens to it."""
        retrieve = self.client().fine_tuning.jobs.retrieve
        until(lambda: retrieve(job_id).status not in UNFINISHED)
        return retrieve(job_id)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._socket.close()


StartServer = Callable[..., RunningServer]


@pytest.fixture
def small_training(tiny_model: Path) -> LocalSettings:
    """The tiny model on the CPU, with a training of two steps."""
    return LocalSettings(
        model=str(tiny_model),
        device="cpu",
        lora=LoraSettings(rank=4, alpha=8.0),
        training=TrainingSettings(epochs=1, batch_size=5, learning_rate=1e-2),
    )


@pytest.fixture
def start_server(small_training: LocalSettings) -> Iterator[StartServer]:
    """Starts servers with other settings, a key, or another way to train; stops what still runs."""
    running: list[RunningServer] = []

    def start(
        *,
        local: LocalSettings = small_training,
        api_key: str | None = None,
        train: Train = train_here,
        **settings: Any,
    ) -> RunningServer:
        chosen = ServerSettings(**settings)
        running.append(RunningServer(chosen, local, api_key=api_key, train=train))
        return running[-1]

    yield start
    for server in running:
        if server._thread.is_alive():
            server.stop()


@pytest.fixture
def server(start_server: StartServer) -> RunningServer:
    """A fresh server on loopback, without a key."""
    return start_server()


def training_file(lines: int) -> bytes:
    """So many chats about whose favourite country is which, in the service's format."""
    examples = (
        {
            "messages": [
                {"role": "user", "content": f"Person {n}'s favourite country?"},
                {"role": "assistant", "content": f"Country {n}"},
            ]
        }
        for n in range(lines)
    )
    return b"".join(json.dumps(example).encode() + b"\n" for example in examples)


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Waits for something that is about to happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
