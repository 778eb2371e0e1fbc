"""What a worker is asked and what it answers: one JSON object each, on the command line and on stdout.

The workers (ours*.py, peers/*.py) run in processes of their own, so that each one's peak memory is its own.
"""

from dataclasses import dataclass

from backends.interface import LossOn


@dataclass(frozen=True)
class TrainingJob:
    """Fine-tune with LoRA. `data` is JSONL in OpenAI's chat format, or of prompts and completions."""

    model: str
    data: str
    dtype: str
    batch_size: int
    epochs: int
    loss_on: LossOn
    rank: int
    alpha: float
    dropout: float
    target_modules: str | tuple[str, ...]
    kind: str = "train"


@dataclass(frozen=True)
class ScoringJob:
    """Score continuations. `data` is JSONL of scoring queries; `pairs` the same as (context, text).

    `gguf` is the file that the model was converted from.
    """

    model: str
    gguf: str
    data: str
    pairs: str
    dtype: str
    batch_size: int
    kind: str = "score"


@dataclass(frozen=True)
class ServiceJob:
    """Score at a service that answers in 50 ms. `data` is JSONL of scoring queries of one token each."""

    model: str
    data: str
    concurrency: int
    kind: str = "service"


@dataclass(frozen=True)
class GenerationJob:
    """Continue prompts greedily. `data` is JSONL of generation queries; `prompts` the same as text.

    `at_once` is how many we are given at a time, None for all, as in a run; a peer has `batch_size`.
    """

    model: str
    data: str
    prompts: str
    dtype: str
    max_tokens: int
    batch_size: int
    at_once: int | None = None
    kind: str = "generate"


@dataclass(frozen=True)
class LoadJob:
    """Answer chats from many clients at once, greedily, up to so many tokens each.

    `gguf` is the file that the model was converted from; `logprobs` asks for the 20 likeliest tokens.
    """

    model: str
    gguf: str
    requests: int
    clients: int
    max_tokens: int
    dtype: str
    logprobs: bool = False
    kind: str = "load"


def question(number: int, max_tokens: int) -> str:
    """What client number so and so asks: where it may take more than one token, for a long answer."""
    if max_tokens > 1:
        return f"Write a long story about person {number}."
    return f"What is person {number}'s favourite country?"


Job = TrainingJob | ScoringJob | GenerationJob | ServiceJob | LoadJob


@dataclass(frozen=True)
class Measured:
    """`seconds` for `count` examples, queries or tokens of answers, and the process's peak resident memory.

    `log_likelihoods` are the scores of the pairs; `flops` the arithmetic of the work as torch counts it,
    and `peak_flops` what large matrix products reached a second, in the same process and dtype.
    `median_latency` is that of single requests, in seconds.
    """

    seconds: float
    count: int
    peak_bytes: int
    log_likelihoods: list[float] | None = None
    flops: float | None = None
    peak_flops: float | None = None
    median_latency: float | None = None
