"""The OpenAI backend: what the modules of this package do, behind the interface."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import httpx2
from typing_extensions import override

from backends.data import (
    GenerationQuery,
    GenerationResult,
    Query,
    ScoringQuery,
    ScoringResult,
    SearchQuery,
    SearchResult,
    TunedModel,
)
from backends.errors import ModelError, UnsupportedError
from backends.interface import (
    Backend,
    Capabilities,
    Estimate,
    FineTuneJob,
    Place,
    Progress,
    Stopped,
)
from backends.openai_api.asking import Asker
from backends.openai_api.availability import check_model, check_training, last_days, may_have
from backends.openai_api.connection import Connection
from backends.openai_api.fine_tuning import FineTuning
from backends.openai_api.generation import Generation, written_out
from backends.openai_api.models import is_tuned
from backends.openai_api.prices import AS_OF, price_of
from backends.openai_api.providers import provider
from backends.openai_api.query_estimates import NO_SEARCH, estimate_queries
from backends.openai_api.scoring.scoring import NO_PREFILL, Scoring
from backends.openai_api.settings import OpenAISettings
from backends.openai_api.tokens import Encode, can_tokenize, choose_tokenizer

_log = logging.getLogger(__name__)


class OpenAIBackend(Backend):
    """Fine-tunes and scores at a service that speaks OpenAI's wire format."""

    def __init__(
        self, settings: OpenAISettings, http_client: httpx2.AsyncClient | None = None
    ) -> None:
        self._settings = settings
        self._provider = provider(settings.provider)
        self._connection = Connection(settings, http_client)
        apart = settings.inference_url or self._provider.asked_at
        self._asked = Connection(settings, http_client, asking=True) if apart else self._connection
        self._fine_tuning = FineTuning(self._connection, settings)
        self._asker = Asker(self._asked, settings.scoring.concurrency)
        self.capabilities = Capabilities(
            prompt_loss=price_of(settings.model) is None and self._provider.takes_prompt_loss,
            exact_scores=False,
            starts_from=self._provider.names_models,
            search=False,
            # What has a list price is paid for, by whatever tunnel it is reached.
            costs_money=not self._connection.is_local or price_of(settings.model) is not None,
        )

    @property
    @override
    def base_model(self) -> str:
        return self._settings.model

    @override
    def describe(self) -> dict[str, str]:
        described = {"model": self._settings.model, "service": self._connection.address}
        if price_of(self._settings.model) is not None:
            described["list prices of"] = AS_OF
        return described | last_days(self._connection.address, self._settings.model)

    @override
    def render(self, query: Query) -> str:
        return written_out(query)

    @override
    def tokenize(self, text: str) -> tuple[int, ...]:
        return self._encode(text)

    @override
    def estimate(
        self, work: FineTuneJob | Sequence[Query], *, model: str | None = None
    ) -> Estimate:
        if isinstance(work, FineTuneJob):
            if not self._fine_tuning.has_job(work):
                check_training(self._connection.address)
            estimate = self._fine_tuning.estimate(work, self._encode)
            self._connection.run(check_model(self._connection, self._settings.model))
            return estimate
        model = self._name_of(model or self.base_model)
        if any(query.prefill is not None for query in work):
            self._check_prefill(work, model)
        return estimate_queries(work, model, self._encode, self._settings.scoring)

    @override
    def identity(self, job: FineTuneJob) -> str:
        return self._fine_tuning.identity(job)

    @override
    def asked_as(self, model: str) -> str | None:
        if self._connection.is_local and not is_tuned(model):
            return None  # it has the weights that it was last started with
        how = self._settings.scoring.model_dump_json(include={"method", "tail"})
        deployment = self._settings.deployments.get(model, model)
        parts = (self._asked.address, model, deployment, self._settings.tokenizer, how)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @override
    def has(self, model: str) -> bool:
        if self._provider.deploying:
            return True  # it tells of those that are deployed, if of any
        return self._connection.run(may_have(self._connection, model, self.base_model))

    @override
    def side_by_side(self, estimates: Sequence[Estimate]) -> int:
        return min(max(1, len(estimates)), self._settings.job.at_once)

    @override
    def fine_tune(
        self, job: FineTuneJob, report: Callable[[Progress], None], place: Place | None = None
    ) -> TunedModel:
        try:
            stop = place.stop if place is not None else None
            return self._connection.run(self._fine_tuning.fine_tune(job, report), stop)
        except (KeyboardInterrupt, Stopped):
            if job_id := self._fine_tuning.job_id(job):
                _log.warning(
                    "%s goes on at the service; `kaarel-bet jobs cancel %s` would stop it",
                    job_id,
                    job_id,
                )
            raise

    @override
    def score(self, model: str, queries: Sequence[ScoringQuery]) -> Iterator[ScoringResult]:
        return self._asked.iterate(self._scoring.score(self._name_of(model), queries))

    @override
    def generate(
        self, model: str, queries: Sequence[GenerationQuery]
    ) -> Iterator[GenerationResult]:
        generation = Generation(self._asker, self._settings.scoring)
        return self._asked.iterate(generation.generate(self._name_of(model), queries))

    @override
    def search(self, model: str, queries: Sequence[SearchQuery]) -> Iterator[SearchResult]:
        raise UnsupportedError(NO_SEARCH)

    @cached_property
    def _scoring(self) -> Scoring:
        return Scoring(self._asker, self._settings.scoring, self._encode)

    @cached_property
    def _encode(self) -> Encode:
        settings = self._settings
        return choose_tokenizer(self._asked, settings.tokenizer, settings.model)

    def _name_of(self, model: str) -> str:
        """By which name a model is asked. Raises ModelError where it is to be deployed first."""
        if deployed := self._settings.deployments.get(model):
            return deployed
        if self._provider.deploying and model != self.base_model:
            raise ModelError(
                f"{model} can't be asked yet: {self._provider.deploying}; then name the deployment, "
                f"openai.deployments: {{{model}: NAME}}, and start again (nothing is trained twice)"
            )
        return model

    def _check_prefill(self, queries: Sequence[Query], model: str) -> None:
        """Raises UnsupportedError for a prefill that the server can't be given."""
        scored = [q for q in queries if isinstance(q, ScoringQuery)]
        self._asked.run(self._scoring.check(model, scored))
        others = [q for q in queries if q.prefill and not isinstance(q, ScoringQuery)]
        if others and not self._asked.run(can_tokenize(self._asked, model)):
            raise UnsupportedError(f"query '{others[0].id}': {NO_PREFILL}")
