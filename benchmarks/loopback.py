"""A server on this machine that answers every chat completion with the same bytes after 50 ms.

    with serving() as base_url: ...

It is a process of its own and does next to nothing, so that what is measured is the client.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ANSWER_SECONDS = 0.05


@contextmanager
def serving() -> Iterator[str]:
    """Its base URL, while it runs."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


def _answer() -> bytes:
    """One token and the 20 likeliest, as a service writes them."""
    words = ["Paris", *(f"word{number}" for number in range(19))]
    top = [
        {"token": word, "logprob": -0.1 - rank / 2, "bytes": list(word.encode())}
        for rank, word in enumerate(words)
    ]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Paris", "refusal": None, "annotations": []},
        "logprobs": {"content": [{**top[0], "top_logprobs": top}], "refusal": None},
        "finish_reason": "length",
    }
    usage = {"prompt_tokens": 40, "completion_tokens": 1, "total_tokens": 41}
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4.1-mini",
        "choices": [choice],
        "usage": usage,
    }
    body = json.dumps(answer).encode()
    limits = "".join(
        f"x-ratelimit-limit-{of}: 10000000\r\nx-ratelimit-remaining-{of}: 9999999\r\n"
        f"x-ratelimit-reset-{of}: 6ms\r\n"
        for of in ("requests", "tokens")
    )
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{limits}content-length: {len(body)}"
    )
    return f"{head}\r\n\r\n".encode() + body


async def _serve() -> None:
    answer = _answer()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                await asyncio.sleep(ANSWER_SECONDS)
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
