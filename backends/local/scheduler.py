"""Many requests to one device: which of them is worked on next.

Requests that arrive together for one model are computed together. Every piece of work is bounded (a
stretch of prompts, a token for each answer under way), and the pieces take turns, so that a long
answer or a long list of prompts does not hold up what comes after.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from backends.errors import DeviceMemoryError, ModelError
from backends.local.admission import Admission
from backends.local.answers import Answer, GeneratedToken, answers_to, choose
from backends.local.decoding import Batch
from backends.local.inference_requests import Generation, PromptScoring, Request
from backends.local.memory import is_out_of_memory, release_cached_memory
from backends.local.open_model import OpenModel
from backends.local.sequences import TokenScore, TokenSequence

_log = logging.getLogger(__name__)


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
        self._waiting: list[Request] = []
        self._running: list[Generation] = []
        self._jobs: list[_Job] = []
        self._cohorts: list[_Cohort] = []
        self._asked_by: dict[Answer, Generation] = {}

    def submit(self, requests: Iterable[Request]) -> None:
        """Adds requests that arrived together."""
        self._waiting += requests

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
        """Begins the waiting requests whose turn it is; those that arrived together, as one job."""
        self._running = [r for r in self._running if not (r.done or r.cancelled)]
        in_use = [work.adapter for work in (*self._jobs, *self._cohorts)]
        admission = Admission(self._running, in_use, self._opened.max_adapters)
        waiting = [request for request in self._waiting if not (request.done or request.cancelled)]
        self._waiting = []
        generations: list[Generation] = []
        scorings: list[PromptScoring] = []
        for request in waiting:
            if not admission.may_begin(request):
                self._waiting.append(request)
            elif isinstance(request, Generation):
                generations.append(request)
            elif isinstance(request, PromptScoring):
                scorings.append(request)
        self._running += generations
        self._jobs += [_Job(group, self._score(group)) for group in _by_adapter(scorings)]
        self._jobs += [_Job(group, self._prefill(group)) for group in _by_adapter(generations)]

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
        batch_tokens = self._opened.batch_tokens
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
        answers = [
            answers_to(r.prompt, r.sampling, decoder.vocabulary, r.samples) for r in requests
        ]
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
        for request, tokens in of_requests.items():
            if request.finish(sum(token.finish is not None for token in tokens)):
                self._running.remove(request)
                if not request.done:
                    self._waiting.append(request)
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
