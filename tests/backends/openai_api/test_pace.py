import asyncio
import time

import pytest

from backends.openai_api import pace as pacing
from backends.openai_api.asking import Asker, Request
from backends.openai_api.pace import Pace, seconds
from tests.backends.openai_api.conftest import Connect
from tests.backends.openai_api.toy_service import ToyService


def headers(of: str, limit: int, remaining: int, reset: str) -> dict[str, str]:
    values = {"limit": str(limit), "remaining": str(remaining), "reset": reset}
    return {f"x-ratelimit-{what}-{of}": value for what, value in values.items()}


class Clock:
    """Time passes only by waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(pacing.asyncio, "sleep", self.sleep)

    async def sleep(self, duration: float) -> None:
        self.now += duration

    def turns(self, pace: Pace, n: int) -> float:
        """How long `n` requests take, one after the other."""
        start = self.now

        async def take() -> None:
            for _ in range(n):
                await pace.turn()

        asyncio.run(take())
        return self.now - start


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_while_there_is_plenty_nobody_waits(clock: Clock) -> None:
    pace = Pace(concurrency=10)
    assert clock.turns(pace, 50) == 0
    pace.learn(headers("requests", 500, 400, "12s"), tokens=30)
    pace.learn({}, tokens=None)
    assert clock.turns(pace, 50) == 0


def test_when_little_is_left_requests_come_as_fast_as_the_bucket_fills(clock: Clock) -> None:
    pace = Pace(concurrency=10)
    # 500 a minute: 495 come back in 59.4 s.
    pace.learn(headers("requests", 500, 5, "59.4s"), tokens=None)
    assert clock.turns(pace, 101) == pytest.approx(100 * 0.12)
    pace.learn(headers("requests", 500, 300, "24s"), tokens=None)
    assert clock.turns(pace, 50) < 0.13  # the last one asked for


def test_tokens_are_limited_by_what_requests_were_counted_as(clock: Clock) -> None:
    pace = Pace(concurrency=10)
    plenty = headers("requests", 500, 499, "120ms")
    # 60,000 a minute: 1,000 a second; a request takes 200.
    pace.learn(plenty | headers("tokens", 60_000, 1_500, "58.5s"), tokens=200)
    assert clock.turns(pace, 11) == pytest.approx(10 * 0.2)


def test_requests_keep_the_pace_that_their_answers_tell(connect: Connect) -> None:
    service = ToyService(echo=False)
    service.headers = headers("requests", 600, 0, "60s")
    asker = Asker(connect(service), concurrency=1)
    body = {"model": "toy", "messages": [], "max_tokens": 1, "temperature": 0}
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pacing.asyncio, "sleep", note)
        for _ in range(3):
            asker.connection.run(asker.ask("x", Request.chat(body)))
    # The first answer brought the news: the second request takes the next turn, the third the one after.
    assert len(waits) == 2
    assert 0 < max(waits) <= 0.1


def test_headers_that_can_not_be_read_slow_nothing_down(clock: Clock) -> None:
    pace = Pace(concurrency=10)
    pace.learn(headers("requests", 500, 0, "soon"), tokens=None)
    assert clock.turns(pace, 50) == 0


def test_a_refusal_holds_everybody_for_as_long_as_it_says(clock: Clock) -> None:
    pace = Pace(concurrency=10)
    pace.hold(30)
    assert clock.turns(pace, 5) == pytest.approx(30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1s", 1), ("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("7.25", 7.25), ("0", 0)],
)
def test_durations_are_read_as_the_headers_have_them(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)
