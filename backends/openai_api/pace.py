"""Slowing down before a rate limit refuses, by what a service says of its limits with every answer.

https://platform.openai.com/docs/guides/rate-limits (headers `x-ratelimit-{limit,remaining,reset}-{requests,
tokens}`). Limits are buckets that fill up steadily, `reset` being the time until one is full.
"""

import asyncio
import re
import time
from collections.abc import Mapping

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}
_DURATION = re.compile(r"([\d.]+)(ms|h|m|s)")


class Pace:
    """When the next request may be sent: at once while there is plenty, else as fast as a bucket fills.

    There is plenty while more is left than all `concurrency` requests under way could use up.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._interval = 0.0
        self._next = 0.0
        self._tokens_a_request = 0.0

    async def turn(self) -> None:
        """Returns when the caller may send its request."""
        now = time.monotonic()
        if self._interval == 0 and now >= self._next:
            return
        turn = max(now, self._next)
        self._next = turn + self._interval
        await asyncio.sleep(turn - now)

    def hold(self, seconds: float) -> None:
        """Lets nobody's turn come before so many seconds have passed."""
        self._next = max(self._next, time.monotonic() + seconds)

    def learn(self, headers: Mapping[str, str], tokens: int | None) -> None:
        """Takes in an answer's headers and the tokens that it was counted as (None: not told)."""
        if "x-ratelimit-limit-requests" not in headers and (
            "x-ratelimit-limit-tokens" not in headers
        ):
            return
        if tokens is not None:
            known = self._tokens_a_request or tokens
            self._tokens_a_request = 0.9 * known + 0.1 * tokens
        self._interval = max(
            self._seconds(headers, "requests", 1.0),
            self._seconds(headers, "tokens", self._tokens_a_request),
        )

    def _seconds(self, headers: Mapping[str, str], of: str, cost: float) -> float:
        """From one request to the next, as the bucket `of` asks for; a request takes `cost` of it."""
        try:
            limit = float(headers[f"x-ratelimit-limit-{of}"])
            remaining = float(headers[f"x-ratelimit-remaining-{of}"])
            reset = seconds(headers[f"x-ratelimit-reset-{of}"])
        except (KeyError, ValueError):
            return 0.0
        if remaining > cost * self._concurrency or limit <= remaining:
            return 0.0
        return cost * reset / (limit - remaining)


def seconds(duration: str) -> float:
    """A duration as the headers have it ("6m0s", "20ms"), or plain seconds. Raises ValueError."""
    parts = _DURATION.findall(duration)
    if "".join(number + unit for number, unit in parts) != duration:
        return float(duration)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
