"""What asking queries will take: checked and counted before the model is loaded."""

from collections.abc import Sequence

from backends.data import GenerationQuery, Query, ScoringQuery, SearchQuery
from backends.interface import Estimate
from backends.local.costs import Answering, Costs
from backends.local.encoding import Encoder
from backends.local.scoring import sequence_of
from backends.local.search import FORKS
from backends.local.sequences import TokenSequence

_MOST_TOKENS = 4_000_000
"""Of sequences that are looked at."""


def estimate_queries(work: Sequence[Query], encoder: Encoder, costs: Costs) -> Estimate:
    """All tokens, as if no prefix were shared; seconds and memory as they are shared.

    Raises:
        DataError: a query can't be asked.
        UnsupportedError: a chat, of a model without a chat template.
    """
    scored = [query for query in work if isinstance(query, ScoringQuery)]
    others = [query for query in work if isinstance(query, GenerationQuery | SearchQuery)]
    return Estimate.of_all([_scored(scored, encoder, costs), _answered(others, encoder, costs)])


def _scored(work: Sequence[ScoringQuery], encoder: Encoder, costs: Costs) -> Estimate:
    queries = [encoder.query(query) for query in work]
    lengths = [len(q.context) + sum(len(t) - 1 for t in q.candidates.values()) for q in queries]
    # Of very many some stand for all: the tree of every rating of every answer would fill the memory.
    every = 1 + sum(query.n_tokens for query in queries) // _MOST_TOKENS
    some = queries[::every]
    cost = costs.of_scoring([sequence_of(q, label) for q in some for label in q.candidates])
    return Estimate(
        tokens=sum(lengths),
        seconds=cost.seconds * len(queries) / max(1, len(some)),
        memory_bytes=cost.memory_bytes,
        cut=sum(query.is_cut for query in queries),
    )


def _answered(
    work: Sequence[GenerationQuery | SearchQuery], encoder: Encoder, costs: Costs
) -> Estimate:
    tokens = 0
    prompts: list[TokenSequence] = []
    asked: list[Answering] = []
    for query in work:
        prompt = encoder.prompt(query)
        # Of a search's texts that can be under way at a time few are, so not all of them take time.
        if isinstance(query, SearchQuery):
            most = int(1 / query.min_probability)
            usual = min(most, FORKS)
        else:
            most = usual = query.n_samples
        tokens += len(prompt) + most * query.max_tokens
        prompts.append(TokenSequence([*prompt, 0], [len(prompt)]))
        asked.append(Answering(len(prompt), usual, query.max_tokens))
    cost = costs.of_answering(prompts, asked)
    return Estimate(tokens, seconds=cost.seconds, memory_bytes=cost.memory_bytes)
