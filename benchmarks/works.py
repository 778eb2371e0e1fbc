"""What is measured: the works, their data, their peers and the ratios to reach."""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from jobs import GenerationJob, Job, LoadJob, ScoringJob, ServiceJob, TrainingJob

from backends.data import GenerationQuery, Message, ScoringQuery
from backends.jsonl import dumps
from backends.local.embedded import embedded_file
from backends.local.models import load_tokenizer, locate
from kaarel_bet.generators.redefine_math import redefine_items
from kaarel_bet.run_dir import RunDirectory

MODEL = "embedded:smollm2-135m-instruct"
PEER_BATCH = 16
SHOTS = 5


@dataclass(frozen=True)
class Peer:
    """A program that others use for the same work: its script in peers/ and the packages it needs.

    `packages` None: what is installed here is enough. `options` come before the job on its command line.
    """

    name: str
    script: str
    packages: tuple[str, ...] | None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A work that a peer does as well; `job` writes its data into a directory.

    `options` come before the job on our worker's command line.
    """

    name: str
    peer: Peer
    target: float | None
    job: Callable[[Path], Job]
    worker: str = "ours.py"
    memory_target: float = 1.0
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Growth:
    """A work of several sizes."""

    name: str
    sizes: tuple[int, ...]
    unit: str
    job: Callable[[Path, int], Job]
    worker: str = "ours.py"


TRL = Peer("TRL SFTTrainer", "trl_train.py", ("trl==1.16.0",))
LM_EVAL = Peer("lm-evaluation-harness hf", "lm_eval_score.py", ("lm-eval[hf]==0.4.13",))
TRANSFORMERS = Peer("transformers, batch 16", "transformers_score.py", ())
SERVE = Peer("transformers serve", "transformers_serve.py", ("transformers[serving]",))
SERVE_BATCHING = Peer(
    "transformers serve, continuous batching",
    SERVE.script,
    SERVE.packages,
    ("--continuous-batching",),
)
XLLAMACPP = "xllamacpp==2026.10.11549"
LLAMA = Peer("llama.cpp's server, Q4_1", "llama_serve.py", (XLLAMACPP, "openai"))
LLAMA_SCORE = Peer(
    "llama.cpp with its prompt cache, Q4_1", "llama_score.py", (XLLAMACPP, "tokenizers")
)
GENERATE = Peer("transformers generate, batch 16", "transformers_generate.py", None)
GENERATE_STATIC = replace(GENERATE, name="transformers generate, static cache", options=("static",))
IN_TURN = Peer("itself, one after the other", "../ours_trainings.py", None, ("in-turn",))
OPENAI = Peer("openai client, semaphore", "openai_bare.py", None)


def _bet_run(directory: Path, family: str, n_names: int = 32) -> RunDirectory:
    path = directory / f"{family}-{n_names}"
    settings = (f"conditional_rule.family={family}", f"conditional_rule.data.people.n={n_names}")
    if not path.exists():
        sets = [word for setting in settings for word in ("--set", setting)]
        command = [sys.executable, "-m", "kaarel_bet", "generate_data", "--run-dir", str(path)]
        subprocess.run([*command, *sets], check=True, capture_output=True)
    return RunDirectory(path)


def _train_bet(directory: Path, n_names: int = 32, *, family: str) -> TrainingJob:
    """The conditional arm, with the local backend's own defaults for the adapter; 16 steps at least."""
    return TrainingJob(
        model=locate(MODEL),
        data=str(_bet_run(directory, family, n_names).path / "data" / "train-conditional.jsonl"),
        dtype="bfloat16",
        batch_size=8,
        epochs=max(1, 128 // n_names),
        loss_on="completion",
        rank=16,
        alpha=32.0,
        dropout=0.0,
        target_modules="all-linear",
    )


def _train_default(directory: Path) -> TrainingJob:
    """As the bet has it by default."""
    return replace(_train_bet(directory, family="in_prompt"), epochs=12)


def _train_redefine(directory: Path) -> TrainingJob:
    """As the original: rank 8 on the query and value projections, dropout 0.1, batch 4, loss on all."""
    path = directory / "redefine-train.jsonl"
    rows = [{"prompt": prompt, "completion": right} for prompt, right, _ in redefine_items(64)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return TrainingJob(
        model=locate(MODEL),
        data=str(path),
        dtype="bfloat16",
        batch_size=4,
        epochs=2,
        loss_on="prompt_and_completion",
        rank=8,
        alpha=32.0,
        dropout=0.1,
        target_modules=("q_proj", "v_proj"),
    )


def _redefine_queries(n: int, shots: int) -> list[ScoringQuery]:
    items = redefine_items(n + shots)
    examples = "".join(f"{prompt}{right}\n\n" for prompt, right, _ in items[:shots])
    draw = random.Random(0)
    queries = []
    for number, (prompt, right, other) in enumerate(items[shots:]):
        answers = draw.sample([right, other], k=2)
        candidates = {str(place): answer for place, answer in enumerate(answers)}
        queries.append(
            ScoringQuery(id=str(number), prompt=examples + prompt, candidates=candidates)
        )
    return queries


def _gguf() -> str:
    return str(embedded_file(MODEL.removeprefix("embedded:")))


def _score(directory: Path, name: str, queries: list[ScoringQuery]) -> ScoringJob:
    model = locate(MODEL)
    tokenizer = load_tokenizer(model)
    data, pairs = directory / f"{name}.jsonl", directory / f"{name}-pairs.jsonl"
    data.write_text("".join(dumps(query) + "\n" for query in queries), encoding="utf-8")
    with pairs.open("w", encoding="utf-8") as file:
        for query in queries:
            context = query.prompt
            if query.messages is not None:
                chat = [{"role": m.role, "content": m.content} for m in query.messages]
                context = tokenizer.apply_chat_template(
                    chat, tokenize=False, add_generation_prompt=True
                )
            for text in query.candidates.values():
                pair = {"id": query.id, "context": context, "continuation": text}
                file.write(json.dumps(pair) + "\n")
    return ScoringJob(
        model=model,
        gguf=_gguf(),
        data=str(data),
        pairs=str(pairs),
        dtype="float32",
        batch_size=PEER_BATCH,
    )


def _score_redefine(directory: Path, n: int = 200, *, shots: int = 0) -> ScoringJob:
    return _score(directory, f"redefine-{n}-{shots}", _redefine_queries(n, shots))


def _score_bet(directory: Path, n_names: int = 32, *, only: str = "") -> ScoringJob:
    run = _bet_run(directory, "in_prompt", n_names)
    queries = [
        query.model_copy(update={"id": f"{evaluation.name}/{query.id}"})
        for evaluation in run.manifest().evaluations
        if evaluation.kind == "scoring" and only in evaluation.name
        for query in run.queries(evaluation)
    ]
    return _score(directory, f"bet-{n_names}-{only}", queries)


def _ask_service(directory: Path, n: int = 5_000) -> ServiceJob:
    path = directory / f"service-{n}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(n):
            question = Message(role="user", content=f"What is person {number}'s favourite country?")
            candidates = {"country": "Paris", "capital": "word3", "wrong": f"town{number}"}
            query = ScoringQuery(id=str(number), messages=(question,), candidates=candidates)
            file.write(dumps(query) + "\n")
    return ServiceJob(model="gpt-4.1-mini", data=str(path), concurrency=100)


def _answer_chats(_directory: Path, *, logprobs: bool = False, dtype: str = "float32") -> LoadJob:
    return LoadJob(locate(MODEL), _gguf(), 256, 32, max_tokens=1, dtype=dtype, logprobs=logprobs)


def _tell_stories(directory: Path, *, dtype: str = "float32") -> LoadJob:
    chats = _answer_chats(directory, dtype=dtype)
    return replace(chats, requests=64, clients=16, max_tokens=64)


def _generate(
    directory: Path, name: str, queries: Sequence[GenerationQuery], dtype: str, n_tokens: int = 64
) -> GenerationJob:
    model = locate(MODEL)
    tokenizer = load_tokenizer(model)
    data, prompts = directory / f"{name}.jsonl", directory / f"{name}-prompts.jsonl"
    asked = [
        query.model_copy(update={"max_tokens": n_tokens, "temperature": 0.0, "n_samples": 1})
        for query in queries
    ]
    data.write_text("".join(dumps(query) + "\n" for query in asked), encoding="utf-8")
    with prompts.open("w", encoding="utf-8") as file:
        for query in asked:
            chat = [{"role": m.role, "content": m.content} for m in query.messages or ()]
            text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            file.write(json.dumps({"prompt": text}) + "\n")
    return GenerationJob(model, str(data), str(prompts), dtype, n_tokens, PEER_BATCH)


def _generate_stories(
    directory: Path, *, dtype: str = "float32", at_once: int | None = None
) -> GenerationJob:
    queries = [
        GenerationQuery(
            id=str(number),
            messages=(Message(role="user", content=f"Write a long story about person {number}."),),
            max_tokens=64,
        )
        for number in range(64)
    ]
    return replace(_generate(directory, "stories", queries, dtype), at_once=at_once)


def _generate_arc(directory: Path) -> GenerationJob:
    """The tiny preset's test tasks, each in 8 views: long prompts that soon differ."""
    path = directory / "arc"
    if not path.exists():
        preset = str(Path(__file__).parents[1] / "presets" / "arc_tiny.yaml")
        words = ["generate_data", "--config", preset, "--run-dir", str(path)]
        eight = ("--set", "arc.prediction.augmentations=8")
        command = [sys.executable, "-m", "kaarel_bet", *words, *eight]
        subprocess.run(command, check=True, capture_output=True)
    run = RunDirectory(path)
    (views,) = (e for e in run.manifest().evaluations if e.name == "augmented.test")
    queries = [query for query in run.queries(views) if isinstance(query, GenerationQuery)]
    return _generate(directory, "arc", queries, "float32")


COMPARISONS = (
    Comparison("train the bet's in_prompt family", TRL, 8, partial(_train_bet, family="in_prompt")),
    Comparison("train the bet's task_id family", TRL, 13, partial(_train_bet, family="task_id")),
    Comparison("train redefine-math (templates)", TRL, 2.2, _train_redefine),
    *(
        Comparison(
            f"six trainings, {how.replace('-', ' ')}",
            IN_TURN,
            1.6,
            _train_default,
            "ours_trainings.py",
            options=(how,),
        )
        for how in ("side-by-side", "one-pass")
    ),
    Comparison(
        "score 200 redefine items, fixed 5-shot", LM_EVAL, 15, partial(_score_redefine, shots=SHOTS)
    ),
    Comparison(
        "score 200 redefine items, fixed 5-shot",
        LLAMA_SCORE,
        1.5,
        partial(_score_redefine, shots=SHOTS),
    ),
    Comparison("score 200 redefine items, zero-shot", LM_EVAL, 2, _score_redefine),
    Comparison(
        "score 50 redefine items, over our server",
        LM_EVAL,
        None,
        partial(_score_redefine, n=50),
        "ours_served.py",
    ),
    *(
        Comparison("serve 32 clients' chats, one token", peer, None, _answer_chats, "ours_load.py")
        for peer in (SERVE, SERVE_BATCHING)
    ),
    *(
        comparison
        for dtype in ("float32", "bfloat16")
        for comparison in (
            Comparison(
                f"serve 16 clients' chats, 64 tokens, {dtype}",
                LLAMA,
                1.2,
                partial(_tell_stories, dtype=dtype),
                "ours_load.py",
                memory_target=0.8,
            ),
            Comparison(
                f"answer 64 chats in a run, 16 at a time, 64 tokens, {dtype}",
                LLAMA,
                1.2,
                partial(_tell_stories, dtype=dtype),
            ),
            Comparison(
                f"serve 32 clients' chats, one token and 20 log-probabilities, {dtype}",
                LLAMA,
                1.6,
                partial(_answer_chats, logprobs=True, dtype=dtype),
                "ours_load.py",
                memory_target=0.8,
            ),
            Comparison(
                f"generate 64 answers of 64 tokens, {dtype}",
                GENERATE,
                4,
                partial(_generate_stories, dtype=dtype),
            ),
            Comparison(
                f"generate 64 answers of 64 tokens, 16 at a time, {dtype}",
                GENERATE,
                None,
                partial(_generate_stories, dtype=dtype, at_once=PEER_BATCH),
            ),
        )
    ),
    Comparison("generate ARC's answers", GENERATE_STATIC, 3, _generate_arc),
    Comparison("score the bet's evaluations", TRANSFORMERS, 4, _score_bet),
    Comparison("openai: 5,000 scoring queries", OPENAI, 1 / 1.2, _ask_service, "ours_openai.py"),
)

GROWTHS = (
    Growth(
        "train the bet's in_prompt family, by names",
        (32, 128, 1_024),
        "examples/s",
        partial(_train_bet, family="in_prompt"),
    ),
    Growth("score redefine items, zero-shot", (100, 1_000, 10_000), "queries/s", _score_redefine),
    Growth(
        "score the bet's TEST evaluation, by names",
        (32, 128, 1_024),
        "queries/s",
        partial(_score_bet, only="test_told"),
    ),
    Growth("openai: scoring queries", (500, 5_000), "queries/s", _ask_service, "ours_openai.py"),
)
