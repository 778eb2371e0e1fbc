"""The plain way: a batch of whole sequences, padded. The reference for the prefix engine."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from backends.local.memory import halving_when_out_of_memory
from backends.local.projection import scores_of, selecting, target_log_probabilities
from backends.local.sequences import Prefilled, TokenScore, TokenSequence

_Indexed = tuple[int, TokenSequence]


class PlainEngine:
    """Runs any causal decoder."""

    shares_prefixes = False

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def log_probabilities(self, sequences: Sequence[TokenSequence]) -> torch.Tensor:
        """As `Engine.log_probabilities`."""
        logits, targets = self._at_targets(sequences)
        each = torch.arange(len(targets), device=targets.device)
        return target_log_probabilities(logits, each, targets)

    @torch.inference_mode()
    def stream(
        self, sequences: Sequence[TokenSequence], batch_tokens: int, top: int = 0
    ) -> Iterator[list[tuple[int, list[TokenScore]]]]:
        """As `Engine.stream`."""

        def scored(batch: Sequence[_Indexed]) -> list[tuple[int, list[TokenScore]]]:
            logits, targets = self._at_targets([sequence for _, sequence in batch])
            each = torch.arange(len(targets), device=targets.device)
            scores = iter(scores_of(logits, each, targets, top))
            return [(i, list(itertools.islice(scores, len(s.targets)))) for i, s in batch]

        for batch in _batches(sequences, batch_tokens):
            yield from halving_when_out_of_memory(scored, batch)

    @torch.inference_mode()
    def prefill(
        self, prompts: Sequence[Sequence[int]], batch_tokens: int
    ) -> Iterator[list[tuple[int, Prefilled]]]:
        """As `Engine.prefill`, without caches: not every decoder that comes here keeps keys and values."""
        # The last token's prediction is wanted, whatever follows.
        asked = [TokenSequence([*prompt, 0], [len(prompt)]) for prompt in prompts]

        def prefilled(batch: Sequence[_Indexed]) -> list[tuple[int, Prefilled]]:
            logits, _ = self._at_targets([sequence for _, sequence in batch])
            return [(i, Prefilled(row, None)) for (i, _), row in zip(batch, logits, strict=True)]

        for batch in _batches(asked, batch_tokens):
            yield from halving_when_out_of_memory(prefilled, batch)

    def _at_targets(self, sequences: Sequence[TokenSequence]) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits that predict each target (targets, vocabulary), and the targets (targets,)."""
        width = max(sequence.targets[-1] for sequence in sequences)
        inputs = torch.zeros(len(sequences), width, dtype=torch.long)
        rows, columns, targets = [], [], []
        for row, sequence in enumerate(sequences):
            # Padding stands on the right, where causal attention never looks: no mask is needed.
            used = sequence.tokens[: sequence.targets[-1]]
            inputs[row, : len(used)] = torch.tensor(used)
            rows += [row] * len(sequence.targets)
            columns += [position - 1 for position in sequence.targets]
            targets += [sequence.tokens[position] for position in sequence.targets]
        device = self._model.device
        where = torch.tensor(rows, device=device), torch.tensor(columns, device=device)
        with selecting(self._model, *where):
            logits = self._model(input_ids=inputs.to(device), use_cache=False).logits[0]
        return logits, torch.tensor(targets, device=device)


def _batches(sequences: Sequence[TokenSequence], batch_tokens: int) -> Iterator[list[_Indexed]]:
    # Longest first: what does not fit the device shows at once.
    by_length = sorted(enumerate(sequences), key=lambda item: -item[1].targets[-1])
    start = 0
    while start < len(by_length):
        size = max(1, batch_tokens // by_length[start][1].targets[-1])
        yield by_length[start : start + size]
        start += size
