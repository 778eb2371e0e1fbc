"""A task: train this, or ask that; and the same as a parcel, which another machine can do.

A parcel has its input files by content, and so has what comes back, so that no file system is shared.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backends import atomic
from backends.data import GenerationQuery, Query, ScoringQuery, TunedModel, n_answers
from backends.errors import KaarelBetError, ModelError, RefusedError, SettingsError
from backends.interface import Backend, FineTuneJob, Progress

Files = Mapping[str, bytes]
"""Name, with folders -> content."""


@dataclass(frozen=True)
class Questions:
    """Queries, of whatever kinds, that a model is asked."""

    model: str
    queries: Sequence[Query]


def _ignore(_: object) -> None:
    """Nobody listens."""


def now_and_then(tell: Callable[[Progress], None], seconds: float) -> Callable[[Progress], None]:
    """Tells at most once in so many seconds how far something has come; what happened, always."""
    told = 0.0

    def report(now: Progress) -> None:
        nonlocal told
        if now.note is None and time.monotonic() - told < seconds:
            return
        told = time.monotonic()
        tell(now)

    return report


@dataclass(frozen=True)
class Task:
    """Train this, or ask that.

    `identity` is what the result depends on: of two tasks with the same, one has to wait for the other.
    `report` hears how far it has come, `take` has the answers as they come; any thread may call them.
    """

    backend: Backend
    work: FineTuneJob | Questions
    identity: str | None
    report: Callable[[Progress], None] = _ignore
    take: Callable[[Sequence[Any]], None] = _ignore


def answers(backend: Backend, asked: Questions) -> Iterator[Any]:
    """The results as they come, kind by kind. Raises as `Backend.score`; RefusedError at the end."""
    refused: dict[str, str] = {}
    for kind in dict.fromkeys(map(_kind, asked.queries)):
        of_kind = [query for query in asked.queries if _kind(query) == kind]
        try:
            yield from getattr(backend, kind)(asked.model, of_kind)
        except RefusedError as error:
            refused |= error.refused
    if refused:
        raise RefusedError(refused)


def _kind(query: Query) -> str:
    if isinstance(query, ScoringQuery):
        return "score"
    return "generate" if isinstance(query, GenerationQuery) else "search"


@dataclass(frozen=True)
class Parcel:
    """A task as it is sent. `threads` is how many the CPU works with, None for as many as torch takes."""

    backend: Backend
    work: FineTuneJob | Questions
    identity: str | None
    files: Files
    threads: int | None


@dataclass(frozen=True)
class Outcome:
    """What comes back: a model and its files, or answers; or the error that another attempt would meet."""

    tuned: TunedModel | None = None
    files: Files = field(default_factory=dict[str, bytes])
    answers: Sequence[Any] = ()
    error: KaarelBetError | None = None


def pack(task: Task, threads: int | None) -> Parcel:
    """The task with its files, read now. Raises OSError."""
    work = task.work
    files = {f"adapter/{name}": content for name, content in _read(_adapter_of(task)).items()}
    if isinstance(work, FineTuneJob):
        files["training.jsonl"] = work.training_file.read_bytes()
        if work.validation_file is not None:
            files["validation.jsonl"] = work.validation_file.read_bytes()
    return Parcel(task.backend, work, task.identity, files, threads)


def unpack(task: Task, outcome: Outcome) -> TunedModel | None:
    """Puts what came back where the task would have put it here. Raises KaarelBetError, OSError."""
    if outcome.error is not None:
        raise outcome.error
    if not isinstance(task.work, FineTuneJob):
        task.take(outcome.answers)
        return None
    assert outcome.tuned is not None
    with atomic.directory(task.work.output) as directory:
        _write(directory, outcome.files)
    return outcome.tuned.model_copy(update={"model": str(task.work.output)})


def perform(
    parcel: Parcel, directory: Path, report: Callable[[Progress], None] = _ignore
) -> Outcome:
    """Does a task in a directory, where the same task again takes up a training that was killed.

    Raises whatever another attempt might not meet, as of a disk that is full.
    """
    try:
        _set_threads(parcel.threads)
        _write(directory, parcel.files)
        if isinstance(parcel.work, FineTuneJob):
            return _trained(parcel, parcel.work, directory, report)
        return _asked(parcel, parcel.work, directory, report)
    except KaarelBetError as error:
        # What is here is called as it is where it comes from.
        here, there = str(directory / "adapter"), str(_adapter_of(parcel))
        return Outcome(error=type(error)(str(error).replace(here, there)))


def _trained(
    parcel: Parcel, job: FineTuneJob, directory: Path, report: Callable[[Progress], None]
) -> Outcome:
    here = replace(
        job,
        training_file=directory / "training.jsonl",
        validation_file=job.validation_file and directory / "validation.jsonl",
        starts_from=job.starts_from and str(directory / "adapter"),
        output=directory / "model",
    )
    _check(parcel, parcel.backend.identity(here), "train another model")
    tuned = parcel.backend.fine_tune(here, report)
    return Outcome(tuned, _read(tuned.model))


def _asked(
    parcel: Parcel, asked: Questions, directory: Path, report: Callable[[Progress], None]
) -> Outcome:
    if _adapter_of(parcel) is not None:
        asked = replace(asked, model=str(directory / "adapter"))
    _check(parcel, parcel.backend.asked_as(asked.model), "answer otherwise")
    total, done = sum(map(n_answers, asked.queries)), 0
    found: list[Any] = []
    for result in answers(parcel.backend, asked):
        found.append(result)
        done += n_answers(result)
        report(Progress(done, total, tokens=0))
    return Outcome(answers=found)


def _check(parcel: Parcel, identity: str | None, what: str) -> None:
    """The machine has to come to the same as the one that planned; a different one would go unseen."""
    if identity != parcel.identity:
        described = ", ".join(f"{k} {v}" for k, v in parcel.backend.describe().items())
        raise SettingsError(
            f"a machine of the executor ({described}) would {what} than the one that plans: name "
            "local.device and the dtypes instead of auto, and have the same model files and version of "
            "kaarel-bet everywhere"
        )


def _adapter_of(task: Task | Parcel) -> str | None:
    """The directory, where the task is planned, of the adapter that it starts from or asks."""
    if isinstance(task.work, FineTuneJob):
        return task.work.starts_from
    return task.work.model if task.work.model != task.backend.base_model else None


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _read(directory: str | None) -> dict[str, bytes]:
    if directory is None:
        return {}
    root = Path(directory)
    if not root.is_dir():
        raise ModelError(f"{root}: no adapter there")
    found = filter(Path.is_file, root.rglob("*"))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def _write(directory: Path, files: Files) -> None:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
