"""The interface between experiments and whatever fine-tunes and scores models.

A backend is opened with `backends.open_backend(name, settings)`. The same contract tests
(tests/backends/test_contract.py) run over every implementation.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from backends.data import (
    GenerationQuery,
    GenerationResult,
    Query,
    ScoringQuery,
    ScoringResult,
    SearchQuery,
    SearchResult,
    TrainingMethod,
    TunedModel,
)

LossOn = Literal["completion", "prompt_and_completion"]
Known = TypeVar("Known")


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do; what it can't is refused by `Backend.estimate`, before any work."""

    prompt_loss: bool
    """Can train with `loss_on="prompt_and_completion"`."""
    exact_scores: bool
    """Log-probabilities are exact however small; otherwise they may be intervals."""
    starts_from: bool
    """Can fine-tune a model that was fine-tuned before."""
    search: bool
    """Can find all completions above a probability."""
    costs_money: bool
    """Work is billed, so an estimate is shown and agreed to first."""
    prefill: bool = False
    """Can begin every answer as a query says; otherwise that depends on the server, which
    `Backend.estimate` finds out."""
    elsewhere: bool = False
    """Its work can be done by another process or machine: it pickles, and is opened anew there."""


@dataclass(frozen=True)
class FineTuneJob:
    """One fine-tune. `output` is the path (no suffix) that the backend may write files at.

    `name` identifies the job within the run `run_id`; together they are what a killed job is
    found again by. `starts_from` is the `TunedModel.model` to continue, None for the base model.
    Of `method` dpo, the files hold preferences, `loss_on` is without effect (the prompt's share of the loss
    cancels), and the reference is the model that the training starts from. `kept_epochs` says how many
    of the last epochs leave a model, the finished one among them; `epoch_model` where the others are.
    """

    run_id: str
    name: str
    training_file: Path
    validation_file: Path | None
    loss_on: LossOn
    seed: int
    starts_from: str | None
    output: Path
    method: TrainingMethod = "supervised"
    kept_epochs: int = 1

    def epoch_model(self, step: int) -> Path:
        """The model as it is after so many steps, beside the output."""
        return self.output.with_name(f"{self.output.name}.step-{step}")


@dataclass(frozen=True)
class Place:
    """Where a fine-tune runs while others run beside it: on one of `of` parts of the machine.

    `number` (from 0) says on which; setting `stop` ends it within a moment, by Stopped, with what is done
    kept.
    """

    number: int
    of: int
    stop: threading.Event


class Stopped(Exception):  # noqa: N818 - not a failure
    """A fine-tune was asked to stop."""


@dataclass(frozen=True)
class Progress:
    """How far a fine-tune has come: optimiser steps, tokens seen by this process, latest loss (nats).

    `total` is 0 while it is not known. `note` is something that happened, to be shown once.
    """

    done: int
    total: int
    tokens: int
    loss: float | None = None
    note: str | None = None


def stoppable(
    report: Callable[[Progress], None], stop: threading.Event
) -> Callable[[Progress], None]:
    """Reports, and ends what reports by Stopped once the event is set."""

    def checked(progress: Progress) -> None:
        if stop.is_set():
            raise Stopped
        report(progress)

    return checked


@dataclass(frozen=True)
class Estimate:
    """What a piece of work takes: tokens (epochs counted), requests to a service, US dollars.

    `usd` is the least and the most that it may cost, None where nothing is billed or the price is not
    known. `seconds` and `memory_bytes` (the device's, at its most) are rough, and None where somebody
    else's machines do the work. `cut` counts prompts too long for the model, whose beginning is left out.
    """

    tokens: int
    requests: int = 0
    usd: tuple[float, float] | None = None
    seconds: float | None = None
    memory_bytes: int | None = None
    cut: int = 0

    @classmethod
    def of_all(cls, estimates: Sequence["Estimate"], at_once: int = 1) -> "Estimate":
        """What pieces of work take in all, so many at once; what is not known of all is not known."""
        usd = _if_all_known([e.usd for e in estimates])
        seconds = _if_all_known([e.seconds for e in estimates])
        memory = _if_all_known([e.memory_bytes for e in estimates])
        return cls(
            tokens=sum(e.tokens for e in estimates),
            requests=sum(e.requests for e in estimates),
            usd=(sum(least for least, _ in usd), sum(most for _, most in usd)) if usd else None,
            seconds=sum(seconds) if seconds else None,
            memory_bytes=sum(sorted(memory)[-at_once:]) if memory else None,
            cut=sum(e.cut for e in estimates),
        )

    @property
    def words(self) -> str:
        """All that is known of it, for readers."""
        parts = [f"{self.tokens:,} tokens"]
        if self.requests:
            parts.append(f"{self.requests:,} requests")
        if self.usd is not None:
            least, most = (f"${side:.2f}" for side in self.usd)
            parts.append(f"about {least}" if least == most else f"{least} to {most}")
        if self.seconds is not None:
            parts.append(f"very roughly {_duration(self.seconds)}")
        if self.memory_bytes is not None:
            parts.append(f"{self.memory_bytes / 1e9:.1f} GB of memory")
        return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _if_all_known(values: Sequence[Known | None]) -> list[Known]:
    """The values; none of them where one is not known."""
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else []


class Backend(Protocol):
    """Fine-tunes models and asks them questions."""

    capabilities: Capabilities

    @property
    def base_model(self) -> str:
        """The model that arms without training are, as `score` and `generate` take it."""
        ...

    def describe(self) -> dict[str, str]:
        """What will be used (model, device, dtype ...), to be shown and recorded."""
        ...

    def render(self, query: Query) -> str:
        """The context as the model will see it, or as near to it as can be known here.

        Raises DataError, UnsupportedError where the model's chat template does not take it.
        """
        ...

    def tokenize(self, text: str) -> tuple[int, ...]:
        """The tokens of a text at the start of an assistant's answer.

        Raises ModelError where the model can't be had.
        """
        ...

    def estimate(
        self, work: FineTuneJob | Sequence[Query], *, model: str | None = None
    ) -> Estimate:
        """What the work takes; checks all of it first. For queries, `model` is who is asked.

        Raises DataError for data that can't be used (with file and line), UnsupportedError for a
        capability that is missing, ModelError for a model that can't be had.
        """
        ...

    def identity(self, job: FineTuneJob) -> str:
        """What the job's model depends on, digested: jobs that agree in it give the same model.

        That is everything that training sees (data, base model, hyper-parameters, seed), and neither the
        names of job and run nor any settings of asking. Raises as `estimate`.
        """
        ...

    def asked_as(self, model: str) -> str | None:
        """What a model's answers depend on beside the query, digested; None where that can't be told.

        Raises as `estimate`.
        """
        ...

    def has(self, model: str) -> bool:
        """Whether a fine-tuned model (`TunedModel.model`) can still be asked. Raises ServiceError."""
        ...

    def side_by_side(self, estimates: Sequence[Estimate]) -> int:
        """How many fine-tunes with these estimates are best under way at once, in places of their own."""
        ...

    def fine_tune(
        self, job: FineTuneJob, report: Callable[[Progress], None], place: Place | None = None
    ) -> TunedModel:
        """Trains, or takes up where a killed call with the same job stopped.

        With a place, of as many as `side_by_side` says, threads may call it at once. Returns once the
        model can be scored. Raises as `estimate`, and DeviceMemoryError, TrainingError.
        """
        ...

    def score(self, model: str, queries: Sequence[ScoringQuery]) -> Iterator[ScoringResult]:
        """One result a query, as each is ready and in any order.

        The candidates continue the context verbatim: the space at the boundary, where the format
        wants one, belongs to the candidate. Raises as `estimate`, and DeviceMemoryError.
        """
        ...

    def generate(
        self, model: str, queries: Sequence[GenerationQuery]
    ) -> Iterator[GenerationResult]:
        """The same for sampled text, a query's samples all at once or in several results, part by part."""
        ...

    def close(self) -> None:
        """Gives back the memory that asking took; what is asked next takes it anew."""
        return

    def search(self, model: str, queries: Sequence[SearchQuery]) -> Iterator[SearchResult]:
        """The same for all completions that have at least a query's `min_probability`.

        That is what a depth-first search with that bound finds (Franzen, Disselhoff & Hartmann 2025,
        arXiv:2505.07859).
        """
        ...
