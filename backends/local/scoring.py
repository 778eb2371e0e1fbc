"""Exact log-probabilities of candidate continuations.

A query's context is computed once and its candidates continue from the key-value cache, so a
candidate of one token costs nothing more. Contexts in a batch have exactly the same number of
tokens: there is no padding to mask and positions are those of the plain sequence.
"""

import itertools
from collections.abc import Iterator, Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

from backends.data import CandidateScore, LogProbability, ScoringResult
from backends.local.encoding import TokenizedQuery
from backends.local.memory import halving_when_out_of_memory
from backends.local.projection import selecting


def score(
    model: PreTrainedModel, queries: Sequence[TokenizedQuery], batch_tokens: int
) -> Iterator[list[ScoringResult]]:
    """The queries' scores, a batch of at most `batch_tokens` context tokens at a time.

    Raises:
        DeviceMemoryError: a single query does not fit the device.
    """
    # Longest first: what does not fit the device shows at once.
    by_length = sorted(queries, key=lambda query: -len(query.context))
    for length, group in itertools.groupby(by_length, key=lambda query: len(query.context)):
        for batch in _slices(list(group), max(1, batch_tokens // length)):
            yield from halving_when_out_of_memory(lambda part: _score_batch(model, part), batch)


def _slices(items: list[TokenizedQuery], size: int) -> Iterator[list[TokenizedQuery]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@torch.inference_mode()
def _score_batch(model: PreTrainedModel, batch: Sequence[TokenizedQuery]) -> list[ScoringResult]:
    contexts = torch.tensor([query.context for query in batch], device=model.device)
    cache = DynamicCache()
    rows = torch.arange(len(batch), device=model.device)
    next_token = _log_probabilities(model, contexts, cache, rows, torch.full_like(rows, -1))
    first = [
        {label: next_token[row, tokens[0]].item() for label, tokens in query.candidates.items()}
        for row, query in enumerate(batch)
    ]
    rest = _after_first_token(model, cache, batch)
    return [
        ScoringResult(
            id=query.id,
            candidates={
                label: CandidateScore(
                    total=LogProbability.exact(first[row][label] + rest.get((row, label), 0.0)),
                    first_token=LogProbability.exact(first[row][label]),
                    n_tokens=len(tokens),
                )
                for label, tokens in query.candidates.items()
            },
            method="exact",
        )
        for row, query in enumerate(batch)
    ]


def _after_first_token(
    model: PreTrainedModel, cache: DynamicCache, batch: Sequence[TokenizedQuery]
) -> dict[tuple[int, str], float]:
    """(row, label) -> log-probability of a candidate's tokens after its first, given the first."""
    tails = [
        (row, label, tokens)
        for row, query in enumerate(batch)
        for label, tokens in query.candidates.items()
        if len(tokens) > 1
    ]
    if not tails:
        return {}
    width = max(len(tokens) for _, _, tokens in tails) - 1
    inputs = torch.zeros(len(tails), width, dtype=torch.long)
    rows, columns, targets = [], [], []
    for index, (_, _, tokens) in enumerate(tails):
        inputs[index, : len(tokens) - 1] = torch.tensor(tokens[:-1])
        rows += [index] * (len(tokens) - 1)
        columns += range(len(tokens) - 1)
        targets += tokens[1:]
    device = model.device
    cache.batch_select_indices(torch.tensor([row for row, _, _ in tails], device=device))
    chosen_rows = torch.tensor(rows, device=device)
    log_probabilities = _log_probabilities(
        model, inputs.to(device), cache, chosen_rows, torch.tensor(columns, device=device)
    )
    of_targets = log_probabilities.gather(1, torch.tensor(targets, device=device).unsqueeze(1))
    sums = torch.zeros(len(tails), device=device).index_add_(0, chosen_rows, of_targets.squeeze(1))
    return {(row, label): sums[i].item() for i, (row, label, _) in enumerate(tails)}


def _log_probabilities(
    model: PreTrainedModel,
    inputs: torch.Tensor,
    cache: DynamicCache,
    rows: torch.Tensor,
    columns: torch.Tensor,
) -> torch.Tensor:
    """Natural log-probabilities of the next token at n positions of the inputs: (n, vocabulary)."""
    with selecting(model, rows, columns):
        logits = model(input_ids=inputs, past_key_values=cache, use_cache=True).logits[0]
    return torch.log_softmax(logits.float(), dim=-1)
