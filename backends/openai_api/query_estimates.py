"""What asking queries will take: checked, counted and priced before anything is sent."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backends.data import GenerationQuery, Query, ScoringQuery, SearchQuery
from backends.errors import DataError, UnsupportedError
from backends.interface import Estimate
from backends.openai_api.generation import MOST_SAMPLES, in_requests
from backends.openai_api.models import is_tuned
from backends.openai_api.prices import BATCH_DISCOUNT, price_of
from backends.openai_api.settings import ScoringSettings
from backends.openai_api.tokens import Encode, ask_together, message_texts, message_tokens

# What biased sampling takes at the most for a candidate that is not among the most likely tokens: requests
# of 8 samples to find the bias (up to 100 by steps of 8, then 3 to halve a step), and those that count.
_REQUESTS_TO_FIND_A_BIAS = 16
_SAMPLES_TO_FIND_A_BIAS = 8 * _REQUESTS_TO_FIND_A_BIAS

NO_SEARCH = (
    "the openai backend can't search for all completions above a probability; use --backend local, or "
    "leave out what is searched for"
)


@dataclass(frozen=True)
class _Tokens:
    """Tokens sent and tokens answered."""

    sent: int = 0
    answered: int = 0

    def __add__(self, other: "_Tokens") -> "_Tokens":
        return _Tokens(self.sent + other.sent, self.answered + other.answered)


def estimate_queries(
    queries: Sequence[Query], model: str, encode: Encode, scoring: ScoringSettings
) -> Estimate:
    """Tokens, requests at the most and, where the price is known, the least and most that they cost.

    Raises:
        DataError: a query can't be scored.
        UnsupportedError: a query asks for a search.
    """
    ask_together(encode, (text for query in queries for text in _texts(query)))
    certain, possible, n_requests = _Tokens(), _Tokens(), len(queries)
    for query in queries:
        own = _of_query(query, encode)
        certain += own
        if isinstance(query, GenerationQuery):  # each request sends the prompt
            further = len(list(in_requests(query))) - 1
            n_requests += further
            certain += _Tokens(further * own.sent)
        if isinstance(query, ScoringQuery) and scoring.tail.sample:
            tail_requests = _requests_of_tails(query, scoring.tail.n_samples)
            n_requests += tail_requests
            possible += _of_tails(query, own, tail_requests, scoring.tail.n_samples)
    usd = None
    if price := price_of(model):
        discount = BATCH_DISCOUNT if scoring.batch else 1.0
        least, most = (
            discount
            * price.of_asking(
                tuned=is_tuned(model), input_tokens=tokens.sent, output_tokens=tokens.answered
            )
            for tokens in (certain, certain + possible)
        )
        usd = (least, most)
    return Estimate(tokens=certain.sent + certain.answered, requests=n_requests, usd=usd)


def _texts(query: Query) -> Iterator[str]:
    yield from message_texts(query.messages or ())
    yield from (query.prompt or "", query.prefill or "")
    if isinstance(query, ScoringQuery):
        yield from query.candidates.values()


def _of_query(query: Query, encode: Encode) -> _Tokens:
    if isinstance(query, SearchQuery):
        raise UnsupportedError(NO_SEARCH)
    if query.messages is not None:
        sent = message_tokens(encode, query.messages) + len(encode(query.prefill or ""))
    else:
        sent = len(encode(query.prompt or ""))
    if isinstance(query, GenerationQuery):
        return _Tokens(sent, query.n_samples * query.max_tokens)
    assert isinstance(query, ScoringQuery)
    _check_candidates(query)
    return _Tokens(sent, max(len(encode(text)) for text in query.candidates.values()))


def _requests_of_tails(query: ScoringQuery, n_samples: int) -> int:
    to_count = math.ceil(n_samples / MOST_SAMPLES)
    return len(query.candidates) * (_REQUESTS_TO_FIND_A_BIAS + to_count)


def _of_tails(query: ScoringQuery, own: _Tokens, n_requests: int, n_samples: int) -> _Tokens:
    answered = len(query.candidates) * (n_samples + _SAMPLES_TO_FIND_A_BIAS)
    return _Tokens(n_requests * own.sent, answered)


def _check_candidates(query: ScoringQuery) -> None:
    seen: dict[str, str] = {}
    for label, text in query.candidates.items():
        if not text:
            raise DataError(f"query '{query.id}', candidate '{label}': it is empty")
        if text in seen:
            raise DataError(
                f"query '{query.id}': candidates '{seen[text]}' and '{label}' are the same text; their "
                "scores could not be told apart"
            )
        seen[text] = label
