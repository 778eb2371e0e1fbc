"""The plain way: a batch of whole sequences, padded. The reference for the prefix engine."""

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from backends.local.memory import halving_when_out_of_memory
from backends.local.projection import selecting, target_log_probabilities
from backends.local.sequences import TokenSequence

_Indexed = tuple[int, TokenSequence]


class PlainEngine:
    """Runs any causal decoder."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def log_probabilities(self, sequences: Sequence[TokenSequence]) -> torch.Tensor:
        """As `Engine.log_probabilities`."""
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
        each = torch.arange(len(targets), device=device)
        return target_log_probabilities(logits, each, torch.tensor(targets, device=device))

    @torch.inference_mode()
    def stream(
        self, sequences: Sequence[TokenSequence], batch_tokens: int
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """As `Engine.stream`."""
        # Longest first: what does not fit the device shows at once.
        by_length = sorted(enumerate(sequences), key=lambda item: -item[1].targets[-1])
        start = 0
        while start < len(by_length):
            size = max(1, batch_tokens // by_length[start][1].targets[-1])
            batch = by_length[start : start + size]
            yield from halving_when_out_of_memory(self._scored, batch)
            start += size

    def _scored(self, batch: Sequence[_Indexed]) -> list[tuple[int, list[float]]]:
        values = self.log_probabilities([sequence for _, sequence in batch])
        lengths = [len(sequence.targets) for _, sequence in batch]
        of_each = values.split(lengths)
        return [(index, of_each[i].tolist()) for i, (index, _) in enumerate(batch)]
