"""Many requests to one device: which of them is worked on next.

Requests that arrive together for one model are computed together. Every piece of work is bounded (a
stretch of prompts, a token for each answer under way), and the pieces take turns, so that a long
answer or a long list of prompts does not hold up what comes after.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from backends.errors import DeviceMemoryError, ModelError
from backends.local.answers import Answer, GeneratedToken, answers_to, choose
from backends.local.decoding import MAX_POSITIONS, Batch
from backends.local.memory import is_out_of_memory, release_cached_memory
from backends.local.open_model import OpenModel
from backends.local.sampling import Sampling
from backends.local.sequences import TokenScore, TokenSequence

MAX_ROWS = 64
"""Answers under way at a time; further requests wait. Beyond it a step hardly gains."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Request:
    """What is asked of one model (None is the base model).

    `fail` or the last `deliver` is the last that is called; the asker sets `cancelled`.
    """

    adapter: Path | None
    fail: Callable[[Exception], None]

    def __post_init__(self) -> None:
        self.cancelled = False
        self.done = False

    def give_up(self, error: Exception) -> None:
        """Fails it, unless it is over."""
        if not self.done:
            self.done = True
            self.fail(error)


@dataclass(eq=False)
class Generation(Request):
    """Answers to a prompt; `deliver` is called with their new tokens."""

    prompt: Sequence[int]
    sampling: Sampling
    deliver: Callable[[list[GeneratedToken]], None]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.unfinished = self.sampling.n
        self.positions = self.sampling.n * (len(self.prompt) + self.sampling.max_tokens)


@dataclass(eq=False)
class PromptScoring(Request):
    """Scores of all tokens of a text but the first; it has at least two."""

    tokens: Sequence[int]
    top: int
    deliver: Callable[[list[TokenScore]], None]


_AnyRequest = TypeVar("_AnyRequest", bound=Request)


@dataclass(eq=False)
class _Job:
    """Work for some requests of one adapter, done a piece with each `next(pieces)`."""

    requests: Sequence[Request]
    pieces: Iterator[None]

    @property
    def adapter(self) -> Path | None:
        return self.requests[0].adapter


@dataclass(eq=False)
class _Cohort:
    """Answers of one adapter that are continued together."""

    adapter: Path | None
    batch: Batch[Answer]
    grows: bool = True
    """Whether others may join; not once it was cut down for lack of memory."""


class Scheduler:
    """Runs requests on one thread; what they are called back with must not block."""

    def __init__(self, opened: OpenModel) -> None:
        self._opened = opened
        self._waiting: deque[Generation] = deque()
        self._running: list[Generation] = []
        self._jobs: list[_Job] = []
        self._cohorts: list[_Cohort] = []
        self._asked_by: dict[Answer, Generation] = {}

    def submit(self, requests: Iterable[Request]) -> None:
        """Adds requests that arrived together."""
        scorings: list[PromptScoring] = []
        for request in requests:
            if isinstance(request, PromptScoring):
                scorings.append(request)
            elif isinstance(request, Generation):
                self._waiting.append(request)
        for group in _by_adapter(scorings):
            self._jobs.append(_Job(group, self._score(group)))

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._waiting or self._jobs or self._cohorts)

    def turn(self) -> None:
        """Does a piece of each job, and a token of each answer."""
        self._admit()
        for job in list(self._jobs):
            self._work(job)
        for cohort in list(self._cohorts):
            self._continue(cohort)

    def fail_all(self, error: Exception) -> None:
        """Gives up all requests."""
        for request in [
            *self._waiting,
            *self._running,
            *(r for j in self._jobs for r in j.requests),
        ]:
            request.give_up(error)
        for pending in (self._waiting, self._running, self._jobs, self._cohorts, self._asked_by):
            pending.clear()

    def forget(self, adapter: Path) -> None:
        """Drops an adapter that is no more; what is under way for it fails."""
        error = ModelError(f"{adapter.name}: the model was deleted")
        for request in [
            *self._waiting,
            *self._running,
            *(r for j in self._jobs for r in j.requests),
        ]:
            if request.adapter == adapter:
                request.give_up(error)
                request.cancelled = True
        self._opened.forget(adapter)

    # Jobs

    def _admit(self) -> None:
        """Starts as many waiting requests as fit, in their order; one alone always fits."""
        self._running = [r for r in self._running if not (r.done or r.cancelled)]
        rows = sum(request.unfinished for request in self._running)
        positions = sum(request.positions for request in self._running)
        admitted: list[Generation] = []
        while self._waiting:
            request = self._waiting[0]
            rows += request.sampling.n
            positions += request.positions
            if (self._running or admitted) and (rows > MAX_ROWS or positions > MAX_POSITIONS):
                break
            self._waiting.popleft()
            if not request.cancelled:
                admitted.append(request)
        self._running += admitted
        for group in _by_adapter(admitted):
            self._jobs.append(_Job(group, self._prefill(group)))

    def _work(self, job: _Job) -> None:
        try:
            if all(request.cancelled for request in job.requests):
                job.pieces = iter(())
            else:
                self._opened.activate(job.adapter)
            next(job.pieces)
        except StopIteration:
            self._jobs.remove(job)
        except Exception as error:  # one request's failure must not end the others' thread
            self._jobs.remove(job)
            self._retry(job, error)

    def _retry(self, job: _Job, error: Exception) -> None:
        """Does the requests of a job that failed one by one, so that only the culprit fails."""
        unfinished = [request for request in job.requests if not request.done]
        if len(job.requests) == 1 or isinstance(error, ModelError):
            self._give_up(unfinished, error)
            return
        for request in unfinished:
            if isinstance(request, PromptScoring):
                self._jobs.append(_Job([request], self._score([request])))
            elif isinstance(request, Generation):
                self._jobs.append(_Job([request], self._prefill([request])))

    def _give_up(self, requests: Iterable[Request], error: Exception) -> None:
        if is_out_of_memory(error):
            error = DeviceMemoryError("out of memory on a single request")
        elif not isinstance(error, ModelError | DeviceMemoryError):
            _log.error("a request failed", exc_info=error)
        for request in requests:
            request.give_up(error)

    def _score(self, requests: Sequence[PromptScoring]) -> Iterator[None]:
        sequences = [TokenSequence(list(r.tokens), list(range(1, len(r.tokens)))) for r in requests]
        top = max(request.top for request in requests)
        batch_tokens = self._opened.decoder.batch_tokens
        for completed in self._opened.engine.stream(sequences, batch_tokens, top):
            for index, scores in completed:
                request = requests[index]
                request.done = True
                request.deliver(
                    [TokenScore(s.log_probability, s.top[: request.top]) for s in scores]
                )
            yield

    def _prefill(self, requests: Sequence[Generation]) -> Iterator[None]:
        decoder = self._opened.decoder
        answers = [answers_to(r.prompt, r.sampling, decoder.vocabulary) for r in requests]
        started: list[tuple[int, Batch[Answer]]] = []
        for ready in decoder.start(answers):
            started += ready
            yield
        batch = Batch.joined([batch for _, batch in started])
        for index, of_request in started:
            self._asked_by |= dict.fromkeys(of_request.rows, requests[index])
        self._join(_Cohort(requests[0].adapter, batch))

    # Answers

    def _join(self, new: _Cohort) -> None:
        for cohort in self._cohorts:
            if cohort.adapter == new.adapter and cohort.grows:
                try:
                    cohort.batch = Batch.joined([cohort.batch, new.batch])
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    cohort.grows = False
                else:
                    return
        self._cohorts.append(new)

    def _continue(self, cohort: _Cohort) -> None:
        rows = list(cohort.batch.rows)
        for row in rows:
            row.cancelled = self._asked_by[row].cancelled or self._asked_by[row].done
        batches: list[Batch[Answer]] = []
        try:
            if not all(row.cancelled for row in rows):
                self._opened.activate(cohort.adapter)
                self._deliver(choose(cohort.batch))
                batches = self._advanced(cohort.batch)
        except Exception as error:  # as in `_work`
            self._give_up([self._asked_by[row] for row in rows], error)
        if batches != [cohort.batch]:
            self._cohorts.remove(cohort)
            self._cohorts += [_Cohort(cohort.adapter, batch, grows=False) for batch in batches]
        remaining = {row for batch in batches for row in batch.rows}
        for row in rows:
            if row not in remaining:
                del self._asked_by[row]

    def _deliver(self, made: list[tuple[Answer, GeneratedToken]]) -> None:
        of_requests: dict[Generation, list[GeneratedToken]] = {}
        for row, token in made:
            request = self._asked_by[row]
            of_requests.setdefault(request, []).append(token)
            request.unfinished -= token.finish is not None
        for request, tokens in of_requests.items():
            request.done = request.unfinished == 0
            request.deliver(tokens)

    def _advanced(self, batch: Batch[Answer]) -> list[Batch[Answer]]:
        """The batch, its next tokens computed; in parts where memory does not suffice for the whole."""
        if not batch.rows:
            return []
        try:
            batch.advance()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(batch.rows) == 1:
                self._give_up([self._asked_by[batch.rows[0]]], error)
                return []
        else:
            return [batch]
        release_cached_memory()
        return [part for half in batch.halves() for part in self._advanced(half)]


def _by_adapter(requests: Iterable[_AnyRequest]) -> list[list[_AnyRequest]]:
    groups: dict[Path | None, list[_AnyRequest]] = {}
    for request in requests:
        groups.setdefault(request.adapter, []).append(request)
    return list(groups.values())
