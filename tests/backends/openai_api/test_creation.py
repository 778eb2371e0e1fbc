"""Looking for what was created, by a clock that somebody sets."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from typing_extensions import override

from backends.openai_api.connection import Connection
from backends.openai_api.creation import Creation, Waits
from backends.openai_api.intents import Intent, IntentFile

DAY = 86_400.0


class Nothing(Creation[Any]):
    """At a service that lists nothing."""

    noun = "job"
    looks = 0

    @override
    async def _create(self) -> None:
        raise AssertionError

    @override
    async def _matching(self, intent: Intent) -> list[Any]:
        self.looks += 1
        return []


class Service:
    async def call(self, _what: str, ask: Callable[[], Awaitable[Any]]) -> list[Any]:
        return await ask()


@pytest.mark.parametrize(
    ("ago", "looks"), [(-DAY, range(3, 12)), (0.0, range(3, 12)), (DAY, range(1, 2))]
)
def test_it_is_looked_for_as_long_as_it_may_take_and_no_longer_though_the_clock_was_set_back(
    tmp_path: Path, ago: float, looks: range
) -> None:
    waits = Waits(settle=0.1, look=0.01)
    creation = Nothing(cast("Connection", Service()), IntentFile(tmp_path / "intent"), waits)
    intent = Intent(address="", fingerprint="", sent=time.time() - ago)
    found = asyncio.run(asyncio.wait_for(creation.find(intent), timeout=20))
    assert found is None
    assert creation.looks in looks
