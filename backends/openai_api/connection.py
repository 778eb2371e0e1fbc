"""The connection to a service: one client, one retry policy, and an event loop to run it on."""

import asyncio
import concurrent.futures
import logging
import math
import os
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import tenacity
from openai import AsyncOpenAI

from backends.errors import SettingsError
from backends.interface import Stopped
from backends.openai_api.failures import TRANSIENT, Failure, Kind, check_cut_off, failure
from backends.openai_api.providers import provider
from backends.openai_api.settings import OpenAISettings

T = TypeVar("T")

_log = logging.getLogger(__name__)

AT_HAND_SECONDS = 15.0
"""How long to try while somebody waits for an answer, and to reach a service that never answered yet."""

_PATIENCE_SECONDS = 600.0
_LONGEST_WAIT_SECONDS = 60.0
_MOST_UNREADABLE = 5
"""Answers to one request: each may have been paid for."""
_BUFFERED = 256


class RequestFailed(Exception):  # noqa: N818 - it is not an error yet: the caller decides
    """A request that failed, for callers that go on from there; never seen by a user."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Connection:
    """A service that speaks the wire format."""

    def __init__(
        self,
        settings: OpenAISettings,
        http_client: httpx2.AsyncClient | None = None,
        *,
        asking: bool = False,
    ) -> None:
        """Opens nothing yet. `asking` is for the address at which models are asked.

        Raises:
            SettingsError: there is no key, or no address.
        """
        key = os.environ.get(settings.api_key_env)
        if not key:
            raise SettingsError(
                f"{settings.api_key_env} is not set: put the key into .env or the environment (for a "
                "server that asks for none, any word will do)"
            )
        self.client = AsyncOpenAI(
            api_key=key,
            base_url=_address(settings, asking=asking),
            organization=settings.organization,
            project=settings.project,
            max_retries=0,  # see `call`; and a create must never be sent twice behind our back
            http_client=http_client,
        )
        self._reached = False
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="openai", daemon=True).start()

    @property
    def address(self) -> str:
        """The service's base URL."""
        return str(self.client.base_url).rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether the service runs on this machine, where nobody sends a bill."""
        return (urlsplit(self.address).hostname or "") in ("localhost", "127.0.0.1", "::1")

    async def call(
        self,
        what: str,
        request: Callable[[], Awaitable[T]],
        *,
        patience_seconds: float = _PATIENCE_SECONDS,
        transient: frozenset[Kind] = TRANSIENT,
        model: str | None = None,
    ) -> T:
        """The request's answer; failures that may pass are tried again, with growing waits and jitter.

        Answers that can't be read are few at the most, unless the patience is endless. `what` is what is
        being done, for messages, and `model` with which; `transient` are the failures that may pass.

        Raises:
            ModelError: the service does not have the model.
            ServiceError: it is refused, or still fails after `patience_seconds`.
        """
        try:
            return await self.tried(
                what, request, patience_seconds=patience_seconds, transient=transient
            )
        except RequestFailed as error:
            raise error.failure.as_error(what, model) from error.__cause__

    async def tried(
        self,
        what: str,
        request: Callable[[], Awaitable[T]],
        *,
        patience_seconds: float = _PATIENCE_SECONDS,
        transient: frozenset[Kind] = TRANSIENT,
    ) -> T:
        """As `call`, for callers that go on from a failure.

        Raises:
            RequestFailed: with what the last failure means.
        """
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, RequestFailed) and error.failure.kind in transient
            ),
            wait=_wait,
            stop=self._stop(patience_seconds),
            before_sleep=lambda state: _say(what, state),
            reraise=True,
        )
        return await attempts(self.once, request)

    def _stop(self, patience_seconds: float) -> Callable[[tenacity.RetryCallState], bool]:
        unreadable = 0

        def stop(state: tenacity.RetryCallState) -> bool:
            nonlocal unreadable
            error = state.outcome.exception() if state.outcome else None
            unreadable += isinstance(error, RequestFailed) and error.failure.unreadable
            if unreadable >= _MOST_UNREADABLE and patience_seconds < math.inf:
                return True
            patience = patience_seconds if self._reached else min(patience_seconds, AT_HAND_SECONDS)
            return tenacity.stop_before_delay(patience)(state)

        return stop

    async def once(self, request: Callable[[], Awaitable[T]]) -> T:
        """The request's answer, sent exactly once.

        Raises:
            RequestFailed: with what the failure means.
        """
        try:
            answer = await request()
            if isinstance(answer, str):  # the SDK hands on what does not say that it is JSON
                check_cut_off(answer)
        except Exception as error:
            failed = RequestFailed(failure(error))
            self._reached |= failed.failure.kind is not Kind.UNSENT
            raise failed from error
        self._reached = True
        if isinstance(answer, str):
            raise RequestFailed(
                Failure(Kind.REFUSED, "it did not answer in JSON; is openai.base_url right?")
            )
        return answer

    def run(self, work: Coroutine[Any, Any, T], stop: threading.Event | None = None) -> T:
        """Waits for the work, from code that is not asynchronous; Ctrl-C cancels it.

        So does the event, which raises Stopped.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while stop is not None and not concurrent.futures.wait([future], 0.2).done:
                if stop.is_set():
                    raise Stopped
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items as they come, at most a few ahead of the consumer; closing it cancels the rest."""
        ready: queue.Queue[tuple[bool, Any]] = queue.Queue()
        room = threading.Semaphore(_BUFFERED)
        pump = asyncio.run_coroutine_threadsafe(_pump(items, ready, room), self._loop)
        try:
            while True:
                more, item = ready.get()
                if not more:
                    break
                room.release()
                yield item
            pump.result()
        finally:
            pump.cancel()


def _address(settings: OpenAISettings, *, asking: bool) -> str | None:
    """None is where the SDK finds OpenAI."""
    known = provider(settings.provider)
    given = settings.base_url or os.environ.get("OPENAI_BASE_URL")
    if asking:
        given = settings.inference_url or given or known.asked_at
    address = given or known.address
    if address is None and settings.provider != "openai":
        raise SettingsError(
            f"openai.base_url: {settings.provider} takes the address of your own resource"
        )
    return address


async def _pump(
    items: AsyncIterator[T], ready: "queue.Queue[tuple[bool, Any]]", room: threading.Semaphore
) -> None:
    try:
        async for item in items:
            while not room.acquire(blocking=False):  # blocking would stop the whole loop
                await asyncio.sleep(0.005)
            ready.put((True, item))
    finally:
        ready.put((False, None))


def _wait(state: tenacity.RetryCallState) -> float:
    """What the service asks for, else exponentially longer; always with jitter, never above a minute.

    The service's own number is not cut: sooner would be refused again.
    """
    jitter = tenacity.wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT_SECONDS)(state)
    error = state.outcome.exception() if state.outcome else None
    asked = error.failure.retry_after if isinstance(error, RequestFailed) else None
    return jitter if asked is None else asked + min(jitter, 1.0)


def _say(what: str, state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    if state.attempt_number >= 3 and state.next_action:  # what passes by itself is not worth a line
        _log.warning("%s: %s; trying again in %.0f s", what, error, state.next_action.sleep)
