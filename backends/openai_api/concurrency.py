"""Many requests at once, in memory that does not grow with their number."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_END = object()


async def in_any_order(
    work: Callable[[Item], Awaitable[Result]], items: Iterable[Item], limit: int
) -> AsyncIterator[Result]:
    """The work's result for every item, each as soon as it is ready, `limit` of them under way at once.

    Items are taken as there is room for them. Once one fails nothing new is started; what is under
    way is finished and handed out, as it may be paid for, and then the first failure is raised.
    Closing the iterator cancels what is under way.
    """
    results: asyncio.Queue[object] = asyncio.Queue(maxsize=limit)
    failures: list[Exception] = []
    remaining = iter(items)

    async def worker() -> None:
        for item in remaining:
            try:
                result = await work(item)
            except Exception as error:
                failures.append(error)
            else:
                await results.put(result)
            if failures:
                return

    async def everyone() -> None:
        ended = await asyncio.gather(*(worker() for _ in range(limit)), return_exceptions=True)
        failures.extend(e for e in ended if isinstance(e, Exception))  # of the items themselves
        await results.put(_END)

    running = asyncio.create_task(everyone())
    try:
        while (result := await results.get()) is not _END:
            yield result  # pyright: ignore[reportReturnType] - what is not the end is a Result
        if failures:
            raise failures[0]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
