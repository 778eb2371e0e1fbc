"""Sampled text, greedy or at a temperature."""

from collections.abc import Iterator, Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from backends.data import GenerationQuery, GenerationResult
from backends.local.encoding import Encoder
from backends.local.memory import halving_when_out_of_memory


class Generator:
    """Generates with one model."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        encoder: Encoder,
        batch_tokens: int,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._batch_tokens = batch_tokens

    def generate(self, queries: Sequence[GenerationQuery]) -> Iterator[list[GenerationResult]]:
        """The queries' texts, in batches.

        Greedy queries are batched; sampled ones go one by one, so that each draw depends on its
        query's seed alone and not on what happened to be computed with it.

        Raises:
            DeviceMemoryError: a single query does not fit the device.
        """
        lengths = {query.id: len(self._encoder.prompt(query)) for query in queries}
        greedy = sorted(
            (q for q in queries if q.temperature == 0),
            key=lambda q: (q.max_tokens, lengths[q.id]),
        )
        while greedy:
            size = max(1, self._batch_tokens // (lengths[greedy[0].id] + greedy[0].max_tokens))
            batch = [q for q in greedy[:size] if q.max_tokens == greedy[0].max_tokens]
            greedy = greedy[len(batch) :]
            yield from halving_when_out_of_memory(self._batch, batch)
        for query in queries:
            if query.temperature > 0:
                yield from halving_when_out_of_memory(self._batch, [query])

    @torch.inference_mode()
    def _batch(self, batch: Sequence[GenerationQuery]) -> list[GenerationResult]:
        contexts = [self._encoder.prompt(query) for query in batch]
        width = max(len(context) for context in contexts)
        inputs = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros_like(inputs)
        for row, context in enumerate(contexts):
            inputs[row, width - len(context) :] = torch.tensor(context)
            mask[row, width - len(context) :] = 1
        first = batch[0]
        torch.manual_seed(first.seed)
        outputs = self._model.generate(  # pyright: ignore[reportCallIssue] - a mixin's method
            input_ids=inputs.to(self._model.device),
            attention_mask=mask.to(self._model.device),
            generation_config=self._config(first),
        )
        assert isinstance(outputs, torch.Tensor)
        texts = self._tokenizer.batch_decode(outputs[:, width:], skip_special_tokens=True)
        n = first.n_samples
        return [
            GenerationResult(
                id=query.id,
                prompt=self._encoder.render(query),
                texts=tuple(texts[row * n : (row + 1) * n]),
            )
            for row, query in enumerate(batch)
        ]

    def _config(self, query: GenerationQuery) -> GenerationConfig:
        end = self._tokenizer.eos_token_id
        ends = self._model.generation_config.eos_token_id if self._model.generation_config else None
        sampling = {"temperature": query.temperature, "top_k": 0, "top_p": 1.0}
        return GenerationConfig(
            max_new_tokens=query.max_tokens,
            do_sample=query.temperature > 0,
            num_return_sequences=query.n_samples,
            eos_token_id=ends if ends is not None else end,
            pad_token_id=end
            if self._tokenizer.pad_token_id is None
            else self._tokenizer.pad_token_id,
            **(sampling if query.temperature > 0 else {}),
        )
