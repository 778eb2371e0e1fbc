"""Server-sent events, as the SDK reads them."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from backends.errors import KaarelBetError
from backends.server.errors import ServiceError, as_service_error
from backends.server.generation import while_connected
from backends.server.lists import generated


async def streamed(
    request: Request, chunks: AsyncGenerator[BaseModel, None], *, named: bool = False
) -> StreamingResponse:
    """An answer of one event a chunk, `named` by its type, or else with `[DONE]` after the last.

    What goes wrong before the first chunk is raised, and answered as any request's error; what goes wrong
    later is the last event.
    """
    first = await while_connected(request, anext(chunks))
    return StreamingResponse(_events(first, chunks, named=named), media_type="text/event-stream")


async def _events(
    first: BaseModel, rest: AsyncGenerator[BaseModel, None], *, named: bool
) -> AsyncGenerator[str, None]:
    async with aclosing(rest):
        try:
            yield _event(generated(first), named=named)
            async for chunk in rest:
                yield _event(generated(chunk), named=named)
        except KaarelBetError as error:
            yield _event(as_service_error(error).body)
        except ServiceError as error:
            yield _event(error.body)
        else:
            if not named:
                yield "data: [DONE]\n\n"


def _event(data: dict[str, Any], *, named: bool = False) -> str:
    name = f"event: {data['type']}\n" if named else ""
    return f"{name}data: {json.dumps(data)}\n\n"
