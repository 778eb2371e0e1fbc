"""The worker that sends the same requests with the `openai` client and a semaphore; see ../jobs.py."""

import asyncio
import json
import sys
import time
from pathlib import Path

from openai import AsyncOpenAI

sys.path.append(str(Path(__file__).parents[1]))

from loopback import serving
from memory import peak_bytes


async def score(job: dict, base_url: str) -> tuple[float, list[float]]:
    lines = Path(job["data"]).read_text(encoding="utf-8").splitlines()
    chats = [json.loads(line)["messages"] for line in lines]
    client = AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0)
    semaphore = asyncio.Semaphore(job["concurrency"])

    async def ask(messages: list) -> float:
        async with semaphore:
            answer = await client.chat.completions.create(
                model=job["model"],
                messages=messages,
                temperature=0,
                max_tokens=1,
                logprobs=True,
                top_logprobs=20,
            )
        return answer.choices[0].logprobs.content[0].logprob

    await ask(chats[0])
    started = time.monotonic()
    scores = await asyncio.gather(*(ask(messages) for messages in chats))
    return time.monotonic() - started, list(scores)


def main() -> None:
    job = json.loads(sys.argv[1])
    with serving() as base_url:
        seconds, scores = asyncio.run(score(job, base_url))
    measured = {"seconds": seconds, "count": len(scores), "peak_bytes": peak_bytes()}
    print(json.dumps({**measured, "log_likelihoods": scores}))


if __name__ == "__main__":
    main()
