"""Chat requests from many clients at once: nothing lost, latency, throughput.

    uv run python benchmarks/load.py [--requests N] [--clients N] [--no-training] [--url URL --model M]

Ours, on the embedded model, while it trains as well; with --url, another server, without logprobs.
"""

import argparse
import asyncio
import io
import json
import resource
import statistics
import time
from collections import Counter
from contextlib import AbstractContextManager

from jobs import question
from openai import AsyncOpenAI, OpenAI, OpenAIError
from own_server import own_server

MODEL = "embedded:smollm2-135m-instruct"
TRAINING_FILE_LINES = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--requests", type=int, default=5_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--no-training", action="store_true")
    parser.add_argument("--url", help="another server")
    parser.add_argument("--model", help="what it calls its model")
    options = parser.parse_args()
    if options.url:
        work = load(options.url, options.model, options.requests, options.clients)
        print(json.dumps(asyncio.run(work)))
        return
    with own_server(MODEL) as url:
        client = OpenAI(base_url=url, api_key="any", max_retries=0)
        model = client.models.list().data[0].id
        job = None if options.no_training else _start_training(client, model)
        work = load(url, model, options.requests, options.clients, logprobs=True)
        result = asyncio.run(work)
        if job is not None:
            result["job_afterwards"] = client.fine_tuning.jobs.retrieve(job).status
            client.fine_tuning.jobs.cancel(job)
        print(json.dumps(result))


def _start_training(client: OpenAI, model: str) -> str:
    """A job that lasts longer than the requests; returns once it trains."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is person {number}'s favourite country?"},
                {"role": "assistant", "content": "France"},
            ]
        }
        for number in range(TRAINING_FILE_LINES)
    ]
    lines = io.BytesIO("\n".join(json.dumps(row) for row in rows).encode())
    file = client.files.create(file=("load.jsonl", lines), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        training_file=file.id,
        model=model,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50}}},
    )
    while not any("tep" in e.message for e in client.fine_tuning.jobs.list_events(job.id).data):
        if client.fine_tuning.jobs.retrieve(job.id).status in ("failed", "cancelled"):
            raise RuntimeError("the job did not start")
        time.sleep(1)
    return job.id


def served(server: AbstractContextManager[str], job: dict) -> dict:
    """What jobs.Measured takes, of a server whose address the context manager gives; it is warmed first.

    Raises:
        RuntimeError: not every request was answered.
    """

    def work(requests: int) -> dict:
        options = {name: job[name] for name in ("max_tokens", "logprobs")}
        return asyncio.run(load(url, job["model"], requests, job["clients"], **options))

    with server as url:
        work(job["clients"])
        result = work(job["requests"])
    if result["errors"]:
        raise RuntimeError(f"requests that were not answered: {result['errors']}")
    return {
        "seconds": result["seconds"],
        "count": result["tokens"],
        "peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "median_latency": result["median_seconds"],
    }


async def load(
    url: str, model: str, n: int, clients: int, *, max_tokens: int = 1, logprobs: bool = False
) -> dict:
    """Asks `n` chats, each of so many clients one at a time; latencies in seconds."""
    latencies: list[float] = []
    tokens = 0
    errors: Counter[str] = Counter()
    numbers = iter(range(n))
    extra = {"logprobs": True, "top_logprobs": 20} if logprobs else {}

    async def client() -> None:
        nonlocal tokens
        async with AsyncOpenAI(base_url=url, api_key="any", max_retries=0, timeout=600) as one:
            for number in numbers:
                started = time.monotonic()
                try:
                    answer = await one.chat.completions.create(
                        model=model,
                        messages=[{"role": "user", "content": question(number, max_tokens)}],
                        max_tokens=max_tokens,
                        temperature=0,
                        **extra,
                    )
                    tokens += answer.usage.completion_tokens
                    told = answer.choices[0].logprobs
                    if logprobs and not (told and told.content):
                        errors["no logprobs"] += 1
                except OpenAIError as error:
                    errors[type(error).__name__] += 1
                latencies.append(time.monotonic() - started)

    started = time.monotonic()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.monotonic() - started
    return {
        "requests": n,
        "finished": len(latencies),
        "tokens": tokens,
        "errors": dict(errors),
        "seconds": seconds,
        "requests_per_second": n / seconds,
        "median_seconds": statistics.median(latencies),
        "percentile_95_seconds": statistics.quantiles(latencies, n=20)[-1],
    }


if __name__ == "__main__":
    main()
