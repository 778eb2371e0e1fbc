"""Exact log-probabilities of candidate continuations."""

from collections.abc import Iterable, Iterator, Sequence

from backends.data import CandidateScore, LogProbability, ScoringResult
from backends.local.encoding import TokenizedQuery
from backends.local.engine import Engine
from backends.local.sequences import TokenSequence

_TOKENS_AT_ONCE = 4_000_000
"""Of sequences, as they are before what they share is shared."""


def score(
    engine: Engine, queries: Sequence[TokenizedQuery], batch_tokens: int
) -> Iterator[list[ScoringResult]]:
    """The queries' scores, as the engine completes them.

    Raises:
        DeviceMemoryError: as `Engine.stream`.
    """
    asked = [(i, label) for i, query in enumerate(queries) for label in query.candidates]
    scores: list[dict[str, CandidateScore]] = [{} for _ in queries]
    sequences = [sequence_of(queries[i], label) for i, label in asked]
    for completed in engine.stream(sequences, batch_tokens):
        results = []
        for index, token_scores in completed:
            i, label = asked[index]
            query, of_query = queries[i], scores[i]
            of_query[label] = _score([score.log_probability for score in token_scores])
            if len(of_query) == len(query.candidates):
                in_order = {label: of_query[label] for label in query.candidates}
                results.append(
                    ScoringResult(
                        id=query.id, candidates=in_order, method="exact", is_cut=query.is_cut
                    )
                )
        yield results


def in_parts(queries: Iterable[TokenizedQuery]) -> Iterator[list[TokenizedQuery]]:
    """The queries in lists of which the sequences fit memory: ratings are a hundred a query."""
    part: list[TokenizedQuery] = []
    size = 0
    for query in queries:
        part.append(query)
        size += query.n_tokens
        if size > _TOKENS_AT_ONCE:
            yield part
            part, size = [], 0
    if part:
        yield part


def sequence_of(query: TokenizedQuery, label: str) -> TokenSequence:
    """What is computed of a candidate."""
    candidate = query.candidates[label]
    tokens = query.context + candidate
    if query.longest is not None:
        tokens = tokens[-query.longest :]
    return TokenSequence(tokens, list(range(len(tokens) - len(candidate), len(tokens))))


def _score(log_probabilities: list[float]) -> CandidateScore:
    return CandidateScore(
        total=LogProbability.exact(sum(log_probabilities)),
        first_token=LogProbability.exact(log_probabilities[0]),
        n_tokens=len(log_probabilities),
    )
