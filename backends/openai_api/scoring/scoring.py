"""Scoring over the wire: which way, and all queries through it."""

import logging
from collections.abc import AsyncIterator, Sequence

from backends.data import ScoringQuery, ScoringResult
from backends.errors import UnsupportedError
from backends.openai_api.asking import Asker
from backends.openai_api.scoring.batches import Batches
from backends.openai_api.scoring.biased import Biased
from backends.openai_api.scoring.echo import Echo
from backends.openai_api.scoring.strategy import Strategy, all_but_refused
from backends.openai_api.scoring.top import Top
from backends.openai_api.settings import ScoringSettings
from backends.openai_api.tokens import Encode

NO_PREFILL = (
    "chat completions can't be told how an answer begins (prefill); use --backend local, or a server with "
    "/tokenize and echo (vLLM and `kaarel-bet serve` have them)"
)
_log = logging.getLogger(__name__)


class Scoring:
    """Scores with whichever model is asked for."""

    def __init__(self, asker: Asker, settings: ScoringSettings, encode: Encode) -> None:
        self._asker = asker
        self._settings = settings
        self._encode = encode
        self._ways: dict[str, tuple[Strategy, Biased | None]] = {}

    async def score(
        self, model: str, queries: Sequence[ScoringQuery]
    ) -> AsyncIterator[ScoringResult]:
        """One result a query, each as it is ready and in any order.

        Raises:
            RefusedError: the service will not answer some queries.
            ServiceError: it can't be reached or refuses.
            DataError: a query can't be scored as it is.
            UnsupportedError: the way that the settings ask for is not there.
        """
        if not queries:
            return
        await self.check(model, queries)
        strategy, biased = await self._way(model)
        if self._settings.batch:
            batches = Batches(self._asker, self._settings.concurrency)
            async for result in batches.ask(strategy.prepare, queries):
                yield result
            return

        async def answer(query: ScoringQuery) -> ScoringResult:
            prepared = await strategy.prepare(query)
            result = prepared.read(await self._asker.ask(f"query '{query.id}'", prepared.request))
            return result if biased is None else await biased.narrow(query, result)

        async for result in all_but_refused(answer, queries, self._settings.concurrency):
            yield result

    async def check(self, model: str, queries: Sequence[ScoringQuery]) -> None:
        """Raises UnsupportedError for a prefill where the server has no echo."""
        prefilled = next((query for query in queries if query.prefill is not None), None)
        if prefilled is not None and not isinstance((await self._way(model))[0], Echo):
            raise UnsupportedError(f"query '{prefilled.id}': {NO_PREFILL}")

    async def _way(self, model: str) -> tuple[Strategy, Biased | None]:
        """How to score with the model, found out once."""
        if model not in self._ways:
            strategy = await self._strategy(model)
            biased = await self._biased(model) if isinstance(strategy, Top) else None
            self._ways[model] = strategy, biased
        return self._ways[model]

    async def _strategy(self, model: str) -> Strategy:
        """As the settings say; else exact where the server can."""
        if self._settings.method == "top":
            return Top(model, self._encode)
        echo = Echo(self._asker, model)
        if await echo.is_available():
            return echo
        if self._settings.method == "echo":
            raise UnsupportedError(
                f"openai.scoring.method: the server has no echo for {model} (vLLM and `kaarel-bet serve` "
                "have it); use auto or top, which give intervals"
            )
        _log.warning(
            "%s: the server does not tell the prompt's own log-probabilities (echo), so scores are "
            "intervals by the likeliest tokens",
            model,
        )
        return Top(model, self._encode)

    async def _biased(self, model: str) -> Biased | None:
        tail = self._settings.tail
        if not tail.sample:
            return None
        biased = Biased(self._asker, model, self._encode, tail.n_samples)
        reason = await biased.why_not()
        if reason is not None:
            _log.warning("%s: no biased sampling: %s", model, reason)
            return None
        return biased
