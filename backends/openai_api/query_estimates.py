"""What asking queries will take: checked, counted and priced before anything is sent."""

from collections.abc import Sequence
from dataclasses import dataclass

from backends.data import GenerationQuery, Query, ScoringQuery
from backends.errors import DataError
from backends.interface import Estimate
from backends.openai_api.models import is_tuned
from backends.openai_api.prices import BATCH_DISCOUNT, price_of
from backends.openai_api.settings import ScoringSettings
from backends.openai_api.tokens import Encode, message_tokens

# What biased sampling takes for a candidate that is not among the most likely tokens: some requests to find
# the bias, with a few samples each, and one (of `n_samples`) to count.
_REQUESTS_A_TAIL = 6
_SAMPLES_TO_FIND_A_BIAS = 40


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
    """Tokens, requests and, where the price is known, the least and the most that they cost.

    Raises:
        DataError: a query can't be scored.
    """
    certain, possible = _Tokens(), _Tokens()
    for query in queries:
        own = _of_query(query, encode)
        certain += own
        if isinstance(query, ScoringQuery) and scoring.tail.sample:
            possible += _of_tails(query, own, scoring.tail.n_samples)
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
    return Estimate(tokens=certain.sent + certain.answered, requests=len(queries), usd=usd)


def _of_query(query: Query, encode: Encode) -> _Tokens:
    if query.messages is not None:
        sent = message_tokens(encode, query.messages)
    else:
        sent = len(encode(query.prompt or ""))
    if isinstance(query, GenerationQuery):
        return _Tokens(sent, query.n_samples * query.max_tokens)
    assert isinstance(query, ScoringQuery)
    _check_candidates(query)
    return _Tokens(sent, max(len(encode(text)) for text in query.candidates.values()))


def _of_tails(query: ScoringQuery, own: _Tokens, n_samples: int) -> _Tokens:
    n = len(query.candidates)
    return _Tokens(
        n * _REQUESTS_A_TAIL * own.sent,
        n * (n_samples + _SAMPLES_TO_FIND_A_BIAS),
    )


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
