"""Generated text for whole lists of queries, greedy or at a temperature."""

from collections.abc import Iterator, Sequence

from backends.data import GenerationQuery, GenerationResult
from backends.local.answers import answers_to, choose
from backends.local.decoding import MAX_POSITIONS, MAX_ROWS, Batch, Decoder
from backends.local.encoding import Encoder
from backends.local.memory import halving_when_out_of_memory
from backends.local.sampling import Sampling


class Generator:
    """Generates with one model."""

    def __init__(self, decoder: Decoder, encoder: Encoder) -> None:
        self._decoder = decoder
        self._encoder = encoder

    def generate(self, queries: Sequence[GenerationQuery]) -> Iterator[list[GenerationResult]]:
        """The queries' texts, in batches of `MAX_ROWS` and `MAX_POSITIONS` at most, or one query.

        Raises:
            DeviceMemoryError: a single query does not fit the device.
        """
        sizes = {id(q): len(self._encoder.prompt(q)) + q.max_tokens for q in queries}
        # Rows of a like length pad little and end together.
        remaining = sorted(queries, key=lambda q: (q.max_tokens, sizes[id(q)]))
        while remaining:
            n_rows, size = 0, 0
            for query in remaining:
                n_rows += query.n_samples
                fits = n_rows <= MAX_ROWS and n_rows * sizes[id(query)] <= MAX_POSITIONS
                if size and not fits:
                    break
                size += 1
            batch, remaining = remaining[:size], remaining[size:]
            yield from halving_when_out_of_memory(self._answered, batch)

    def _answered(self, queries: Sequence[GenerationQuery]) -> list[GenerationResult]:
        vocabulary = self._decoder.vocabulary
        answers = [
            answers_to(self._encoder.prompt(query), _sampling(query), vocabulary)
            for query in queries
        ]
        started = [item for ready in self._decoder.start(answers) for item in ready]
        place = {row: (i, row.sample) for i, batch in started for row in batch.rows}
        texts = [[""] * query.n_samples for query in queries]
        batch = Batch.joined([batch for _, batch in started])
        while batch.rows:
            for row, made in choose(batch):
                query, sample = place[row]
                texts[query][sample] += made.text
            batch.advance()
        return [
            GenerationResult(id=query.id, prompt=self._encoder.render(query), texts=tuple(of_query))
            for query, of_query in zip(queries, texts, strict=True)
        ]


def _sampling(query: GenerationQuery) -> Sampling:
    return Sampling(
        max_tokens=query.max_tokens,
        temperature=query.temperature,
        seed=query.seed,
        n=query.n_samples,
    )
