"""Generated text for whole lists of queries, greedy or at a temperature."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from backends.data import GenerationQuery, GenerationResult
from backends.errors import DeviceMemoryError
from backends.local.answers import Answer, answers_to, choose
from backends.local.decoding import MAX_POSITIONS, MAX_ROWS, Batch, Decoder
from backends.local.encoding import Encoder
from backends.local.memory import check_divisible, release_cached_memory
from backends.local.sampling import Sampling


class _Wanted(NamedTuple):
    """One sample of a query, the prompt's tokens, and the query's place in the list."""

    place: int
    query: GenerationQuery
    prompt: Sequence[int]
    sample: int

    @property
    def size(self) -> int:
        """The tokens that it may come to."""
        return len(self.prompt) + self.query.max_tokens


class Generator:
    """Generates with one model."""

    def __init__(self, decoder: Decoder, encoder: Encoder) -> None:
        self._decoder = decoder
        self._encoder = encoder

    def generate(self, queries: Sequence[GenerationQuery]) -> Iterator[GenerationResult]:
        """The queries' texts, a sample a result, each as it ends.

        At most `MAX_ROWS` and `MAX_POSITIONS` are under way at a time, or one.

        Raises:
            DeviceMemoryError: a single sample does not fit the device.
        """
        prompts = [self._encoder.prompt(query) for query in queries]
        wanted = [
            _Wanted(place, query, prompt, sample)
            for place, (query, prompt) in enumerate(zip(queries, prompts, strict=True))
            for sample in query.samples
        ]
        # Rows of a like length pad little and end together.
        wanted.sort(key=lambda one: (one.query.max_tokens, one.size))
        while wanted:
            fitting = (
                n <= MAX_ROWS and n * one.size <= MAX_POSITIONS
                for n, one in enumerate(wanted, start=1)
            )
            n_rows = max(1, sum(itertools.takewhile(bool, fitting)))
            yield from self._answered(wanted[:n_rows])
            wanted = wanted[n_rows:]

    def _answered(self, wanted: Sequence[_Wanted]) -> Iterator[GenerationResult]:
        """All of them at once; in two halves what is left of them when memory runs out."""
        left = {(one.place, one.sample): one for one in wanted}
        try:
            for one, text in self._under_way(wanted):
                del left[one.place, one.sample]
                is_first = one.sample == 0
                prompt = self._encoder.render(one.query) if is_first else ""
                yield GenerationResult(
                    id=one.query.id, prompt=prompt, texts=(text,), first_sample=one.sample
                )
        except RuntimeError as error:
            check_divisible(error)
            if len(wanted) == 1:
                raise DeviceMemoryError(
                    "out of memory on a single answer; use a smaller model or another local.device"
                ) from error
        # Outside the except block, so that the traceback no longer holds on to the failed batch.
        if left:
            release_cached_memory()
            rest, middle = list(left.values()), (len(left) + 1) // 2
            yield from self._answered(rest[:middle])
            yield from self._answered(rest[middle:])

    def _under_way(self, wanted: Sequence[_Wanted]) -> Iterator[tuple[_Wanted, str]]:
        """Each with its text, as it ends."""
        groups: list[list[Answer]] = []
        texts: dict[Answer, str] = {}
        whose: dict[Answer, _Wanted] = {}
        for _, of_query in itertools.groupby(wanted, key=lambda one: one.place):
            samples = list(of_query)
            rows = self._answers(samples)
            whose |= zip(rows, samples, strict=True)
            groups.append(rows)
        started = [batch for ready in self._decoder.start(groups) for _, batch in ready]
        batch = Batch.joined(started)
        while batch.rows:
            for row, made in choose(batch):
                texts[row] = texts.get(row, "") + made.text
                if made.finish:
                    yield whose[row], texts[row]
            batch.advance()

    def _answers(self, samples: Sequence[_Wanted]) -> list[Answer]:
        query, prompt = samples[0].query, samples[0].prompt
        sampling = Sampling(
            max_tokens=query.max_tokens,
            temperature=query.temperature,
            seed=query.seed,
            n=query.n_samples,
        )
        numbers = [one.sample for one in samples]
        return answers_to(prompt, sampling, self._decoder.vocabulary, numbers)
