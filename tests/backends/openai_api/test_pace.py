import asyncio
import time

import pytest

from backends.openai_api import pace as pacing
from backends.openai_api.pace import Pace, seconds


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


def test_headers_that_can_not_be_read_slow_nothing_down(clock: Clock) -> None:
    pace = Pace(concurrency=10)
    pace.learn(headers("requests", 500, 0, "soon"), tokens=None)
    assert clock.turns(pace, 50) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1s", 1), ("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("7.25", 7.25), ("0", 0)],
)
def test_durations_are_read_as_the_headers_have_them(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)
