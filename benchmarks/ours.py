"""The worker that runs kaarel-bet's local backend: `python benchmarks/ours.py JOB`, see jobs.py."""

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from jobs import GenerationJob, LoadJob, Measured, ScoringJob, TrainingJob, question
from memory import peak_bytes as resident_peak_bytes
from pydantic import TypeAdapter
from torch.utils.flop_counter import FlopCounterMode

from backends.data import GenerationQuery, Message, ScoringQuery
from backends.interface import FineTuneJob, Progress
from backends.jsonl import read_jsonl
from backends.local.backend import LocalBackend
from backends.local.models import load_tokenizer
from backends.local.settings import LocalSettings

WARM_UP_STEPS = 2


def train(job: TrainingJob) -> Measured:
    """Every step but the first two; what torch counts in one more step gives the arithmetic."""
    backend = LocalBackend(settings_of(job))
    times: list[float] = []
    counter = FlopCounterMode(display=False)

    def watch(progress: Progress) -> None:
        times.append(time.monotonic())
        if progress.done == progress.total - 1:
            counter.__enter__()

    with tempfile.TemporaryDirectory() as directory:
        fine_tune = FineTuneJob(
            "benchmark", "arm", Path(job.data), None, job.loss_on, 0, None, Path(directory, "arm")
        )
        backend.fine_tune(fine_tune, watch)
    counter.__exit__(None, None, None)
    # Times are of the start and of every step; the last step is the counted one.
    timed = times[WARM_UP_STEPS:-1]
    steps = len(timed) - 1
    return Measured(
        seconds=timed[-1] - timed[0],
        count=steps * job.batch_size,
        peak_bytes=peak_bytes(),
        flops=counter.get_total_flops() * steps,
        peak_flops=matmul_peak(job.dtype),
    )


def settings_of(job: TrainingJob) -> LocalSettings:
    targets = job.target_modules
    return LocalSettings.model_validate(
        {
            "model": job.model,
            "prefix_sharing": "on",
            "lora": {
                "rank": job.rank,
                "alpha": job.alpha,
                "dropout": job.dropout,
                "target_modules": targets if isinstance(targets, str) else tuple(targets),
            },
            "training": {
                "epochs": job.epochs,
                "batch_size": job.batch_size,
                "dtype": job.dtype,
                "checkpoint_seconds": 1e9,
            },
        }
    )


def score(job: ScoringJob) -> Measured:
    queries = list(read_jsonl(Path(job.data), TypeAdapter(ScoringQuery)))
    backend = LocalBackend(
        LocalSettings.model_validate({"model": job.model, "scoring": {"dtype": job.dtype}})
    )
    list(
        backend.score(backend.base_model, queries[:1])
    )  # the model is loaded before the clock starts
    started = time.monotonic()
    results = {r.id: r for r in backend.score(backend.base_model, queries)}
    seconds = time.monotonic() - started
    memory = peak_bytes()
    flops = None
    if len(queries) <= 200:
        with FlopCounterMode(display=False) as counter:
            list(backend.score(backend.base_model, queries))
        flops = counter.get_total_flops()
    return Measured(
        seconds=seconds,
        count=len(queries),
        peak_bytes=memory,
        log_likelihoods=[
            results[query.id].candidates[label].total.low
            for query in queries
            for label in query.candidates
        ],
        flops=flops,
        peak_flops=matmul_peak(job.dtype),
    )


def generate(job: GenerationJob) -> Measured:
    queries = list(read_jsonl(Path(job.data), TypeAdapter(GenerationQuery)))
    seconds, _ = _generated(job.model, job.dtype, queries, job.at_once)
    return Measured(seconds, len(queries), peak_bytes())


def answer(job: LoadJob) -> Measured:
    """The chats as queries, as many at a time as there are clients; tokens as their texts have them."""
    queries = [
        GenerationQuery(
            id=str(number),
            messages=(Message(role="user", content=question(number, job.max_tokens)),),
            max_tokens=job.max_tokens,
            temperature=0.0,
        )
        for number in range(job.requests)
    ]
    seconds, texts = _generated(job.model, job.dtype, queries, job.clients)
    tokenizer = load_tokenizer(job.model)
    n_tokens = sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)
    return Measured(seconds, n_tokens, peak_bytes())


def _generated(
    model: str, dtype: str, queries: Sequence[GenerationQuery], at_once: int | None
) -> tuple[float, list[str]]:
    """How long it took, and the texts."""
    backend = LocalBackend(
        LocalSettings.model_validate({"model": model, "generation": {"dtype": dtype}})
    )
    first = queries[0].model_copy(update={"max_tokens": 2})
    list(backend.generate(backend.base_model, [first]))
    n = at_once or len(queries)
    started = time.monotonic()
    texts = [
        text
        for start in range(0, len(queries), n)
        for result in backend.generate(backend.base_model, queries[start : start + n])
        for text in result.texts
    ]
    return time.monotonic() - started, texts


def matmul_peak(dtype: str) -> float:
    """Operations a second in square matrix products of 2,048: the best of ten."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 2048 if device == "cpu" else 8192
    one, other = (torch.randn(size, size, dtype=getattr(torch, dtype), device=device) for _ in "ab")
    seconds = []
    for _ in range(10):
        started = time.monotonic()
        _ = (one @ other)[0, 0].item()
        seconds.append(time.monotonic() - started)
    return 2 * size**3 / min(seconds)


def peak_bytes() -> int:
    """Of device memory where the device has its own, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resident_peak_bytes()


def main() -> None:
    job = json.loads(sys.argv[1])
    works = {
        "train": lambda: train(TrainingJob(**job)),
        "score": lambda: score(ScoringJob(**job)),
        "generate": lambda: generate(GenerationJob(**job)),
        "load": lambda: answer(LoadJob(**job)),
    }
    print(json.dumps(dataclasses.asdict(works[job["kind"]]())))


if __name__ == "__main__":
    main()
