"""All completions above a probability, for whole lists of queries.

What completions begin with is lengthened token by token, all that is likely enough at once, on a batch
whose rows fork. The probabilities of texts of which none begins another add up to 1 at most, so a query
never has more than 1 / min_probability under way, and level by level the same is found as depth-first
(Franzen, Disselhoff & Hartmann 2025, arXiv:2505.07859).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from backends.data import Completion, SearchQuery, SearchResult
from backends.errors import DeviceMemoryError
from backends.local.decoding import MAX_POSITIONS, Batch, Decoder
from backends.local.detokenising import text_of
from backends.local.encoding import Encoder
from backends.local.memory import check_divisible, release_cached_memory

_MAX_ROWS = 256
"""What bounds the memory of predictions: one has an entry for each token of the vocabulary."""
FORKS = 4
"""Rows to a query that there is room for at the start; what forks more is divided on the way."""
_ROUNDING = 1e-3
"""More than float32 can be off in a log-probability; what is kept is decided in float64."""


@dataclass(eq=False)
class _Search:
    """A query under way."""

    query: SearchQuery
    prompt: Sequence[int]
    found: list[Completion] = field(default_factory=list[Completion])

    def __post_init__(self) -> None:
        self.least = math.log(self.query.min_probability)
        self.positions = len(self.prompt) + self.query.max_tokens

    @property
    def result(self) -> SearchResult:
        """What was found, in order."""
        ordered = sorted(self.found, key=lambda c: (-c.log_probability, c.text))
        return SearchResult(id=self.query.id, completions=tuple(ordered))


@dataclass(frozen=True, eq=False)
class _Beginning:
    """What completions of a query may begin with: a row of a batch."""

    search: _Search
    tokens: tuple[int, ...] = ()
    log_probability: float = 0.0

    @property
    def prompt(self) -> Sequence[int]:
        """What is continued."""
        return self.search.prompt


_Piece = list[_Beginning]


class Searcher:
    """Searches with one model."""

    def __init__(
        self, decoder: Decoder, encoder: Encoder, max_positions: int = MAX_POSITIONS
    ) -> None:
        """`max_positions` bounds what is in the cache at a time, where more than one row is."""
        self._decoder = decoder
        self._encoder = encoder
        self._max_positions = max_positions

    def search(self, queries: Sequence[SearchQuery]) -> Iterator[list[SearchResult]]:
        """The queries' completions, begun in batches that leave room to fork, or by one query.

        Raises:
            DeviceMemoryError: a single row does not fit the device.
        """
        pieces = list(
            self._pieces([_Search(query, self._encoder.prompt(query)) for query in queries])
        )
        while pieces:
            piece = pieces.pop()
            pieces += self._lengthen(piece)
            waiting = {beginning.search for rest in pieces for beginning in rest}
            of_piece = dict.fromkeys(beginning.search for beginning in piece)
            yield [search.result for search in of_piece if search not in waiting]

    def _pieces(self, searches: Sequence[_Search]) -> Iterator[_Piece]:
        piece: _Piece = []
        # Rows of a like length pad little.
        for search in sorted(searches, key=lambda search: search.positions):
            if piece and not self._fits(FORKS * (len(piece) + 1), search.positions):
                yield piece
                piece = []
            piece.append(_Beginning(search))
        if piece:
            yield piece

    def _lengthen(self, piece: _Piece) -> list[_Piece]:
        """Goes on until nothing is left, or until the rest has to be done in the pieces returned."""
        rest = list(piece)
        try:
            self._go_on(rest)
        except (RuntimeError, DeviceMemoryError) as error:
            if isinstance(error, RuntimeError):
                check_divisible(error)
            if len(rest) == 1:
                raise DeviceMemoryError(
                    "out of memory on a single query; use a smaller model or another local.device"
                ) from error
        if not rest:
            return []
        # Outside the except block, so that the traceback no longer holds on to the failed batch.
        release_cached_memory()
        middle = len(rest) // 2
        return [rest[:middle], rest[middle:]]

    def _go_on(self, rest: _Piece) -> None:
        """Replaces what is in `rest` by what lengthens it, until that is nothing or too much."""
        batch = self._started(rest)
        while rest:
            longest = max(beginning.search.positions for beginning in rest)
            if len(rest) > 1 and not self._fits(len(rest), longest):
                return
            completed, lengthened = self._next(batch)
            # Together, so that nothing is lost or found twice if memory runs out from here on.
            rest[:] = [beginning for _, beginning in lengthened]
            for search, completion in completed:
                search.found.append(completion)
            batch.go_on_with(lengthened)
            batch.advance()

    def _fits(self, n_rows: int, positions: int) -> bool:
        """Whether so many rows may be under way, each of so many positions in the end."""
        return n_rows <= _MAX_ROWS and n_rows * positions <= self._max_positions

    def _started(self, piece: _Piece) -> Batch[_Beginning]:
        groups = [[beginning] for beginning in piece]
        started = [item for ready in self._decoder.start(groups) for item in ready]
        return Batch.joined([batch for _, batch in sorted(started, key=lambda item: item[0])])

    @torch.inference_mode()
    def _next(
        self, batch: Batch[_Beginning]
    ) -> tuple[list[tuple[_Search, Completion]], list[tuple[int, _Beginning]]]:
        """What ends with the next token, and what goes on, with the row that it continues."""
        completed: list[tuple[_Search, Completion]] = []
        lengthened: list[tuple[int, _Beginning]] = []
        for place, token, log_probability in _likely(batch):
            before = batch.rows[place]
            search = before.search
            total = before.log_probability + log_probability
            if total < search.least:
                continue
            if token in self._decoder.vocabulary.ends:
                text = text_of(before.tokens, self._decoder.vocabulary.token_bytes)
                completed.append((search, Completion(text=text, log_probability=total)))
            elif len(before.tokens) + 1 < search.query.max_tokens:  # room is left for the end token
                lengthened.append((place, _Beginning(search, (*before.tokens, token), total)))
        return completed, lengthened


def _likely(batch: Batch[_Beginning]) -> Iterator[tuple[int, int, float]]:
    """Row, next token and its log-probability, of all that may be likely enough."""
    logs = torch.log_softmax(batch.logits, dim=-1)
    least = [row.search.least - row.log_probability - _ROUNDING for row in batch.rows]
    rows, tokens = (logs >= torch.tensor(least, device=logs.device)[:, None]).nonzero(as_tuple=True)
    return zip(rows.tolist(), tokens.tolist(), logs[rows, tokens].tolist(), strict=True)
