import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from backends.openai_api.concurrency import in_any_order


class Work:
    """Counts what is under way; doubles numbers, the slower the smaller."""

    def __init__(self) -> None:
        self.started = 0
        self.under_way = 0
        self.most_under_way = 0
        self.cancelled = 0

    async def __call__(self, number: int) -> int:
        self.started += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0.001 if number % 7 else 0.005)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        if number == 13:
            raise ValueError("unlucky")
        return 2 * number


async def collected(results: AsyncIterator[int], into: list[int] | None = None) -> list[int]:
    into = [] if into is None else into
    async for result in results:
        into.append(result)
    return into


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(test(), timeout=20)

    asyncio.run(main())


def test_every_item_has_its_result_and_no_more_are_under_way_than_allowed() -> None:
    async def test() -> None:
        work = Work()
        numbers = [n for n in range(200) if n != 13]
        results = await collected(in_any_order(work, numbers, 10))
        assert results != sorted(results) == [2 * n for n in numbers]
        assert work.most_under_way == 10

    run(test)


def test_items_are_taken_only_as_there_is_room_for_their_results() -> None:
    async def test() -> None:
        taken = 0

        def numbers() -> Iterator[int]:
            nonlocal taken
            for _ in range(100_000):
                taken += 1
                yield 1

        results = in_any_order(Work(), numbers(), 5)
        await anext(results)
        await asyncio.sleep(0.05)  # the consumer is slow
        assert taken <= 1 + 5 + 5
        await results.aclose()  # pyright: ignore[reportAttributeAccessIssue] - it is a generator

    run(test)


def test_after_a_failure_what_is_under_way_is_handed_out_and_nothing_is_started() -> None:
    async def test() -> None:
        work = Work()
        results: list[int] = []
        with pytest.raises(ValueError, match="unlucky"):
            await collected(in_any_order(work, range(1000), 5), results)
        assert len(results) == work.started - 1 < 30
        assert work.cancelled == 0

    run(test)


def test_closing_cancels_what_is_under_way() -> None:
    async def test() -> None:
        work = Work()
        results = in_any_order(work, range(1, 1000, 2), 5)
        await anext(results)
        await results.aclose()  # pyright: ignore[reportAttributeAccessIssue] - it is a generator
        assert work.under_way == 0
        assert work.started < 20

    run(test)


def test_no_items_no_results() -> None:
    async def test() -> None:
        assert await collected(in_any_order(Work(), [], 5)) == []

    run(test)


def test_items_that_fail_to_come_end_it_with_their_error() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("no more")

    results: list[int] = []
    with pytest.raises(ValueError, match="no more"):
        asyncio.run(collected(in_any_order(Work(), items(), 3), results))
    assert sorted(results) == [0, 2, 4, 6, 8]
