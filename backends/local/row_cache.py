"""Keys and values of texts under way: written in place, in room that grows by blocks."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from backends.local.prefix_tree import Integers
from backends.local.sequences import KeysAndValues

BLOCK = 64
"""Positions that room is made for at a time: the shapes that a step computes change no more often."""


class RowCache(Cache):
    """A cache of rows that each begin at position 0 and end where they like.

    A step sees the same positions of all rows, up to a multiple of `BLOCK`; what a row does not have
    is finite, and hidden by the masks. The first rows are in use; others stand by.
    """

    def __init__(self, like: Sequence[KeysAndValues]) -> None:
        """Without rows, for layers as these are, of which some may have nothing of their own."""
        layers = [
            DynamicLayer() if keys is None or values is None else _Rows(keys, values)
            for keys, values in like
        ]
        super().__init__(layers=layers)  # pyright: ignore[reportArgumentType] - a list of a subclass
        self._rows = [layer for layer in layers if isinstance(layer, _Rows)]

    def fit(self, n_rows: int, positions: int) -> None:
        """Makes room for rows of up to so many positions.

        Raises:
            RuntimeError: out of memory; what was there stays.
        """
        for layer in self._rows:
            layer.fit(n_rows, _whole_blocks(positions))

    def write(self, rows: slice, layers: Sequence[KeysAndValues]) -> None:
        """Gives these rows, from their beginning, what a prompt has: (1, key heads, positions, width)."""
        own = [(k, v) for k, v in layers if k is not None and v is not None]
        for layer, (keys, values) in zip(self._rows, own, strict=True):
            layer.keys[rows, :, : keys.shape[2]] = keys
            layer.values[rows, :, : values.shape[2]] = values

    def select(self, places: Sequence[int]) -> None:
        """Makes the first rows those that stood at `places`, which may come several times or never."""
        moves = [(to, place) for to, place in enumerate(places) if to != place]
        in_place = all(place >= len(places) for _, place in moves)
        for layer in self._rows if moves else ():
            layer.select(places, moves if in_place else None)

    def part(self, places: Sequence[int]) -> "RowCache":
        """These rows in a cache of their own."""
        other = RowCache([(layer.keys, layer.values) for layer in self._rows])
        for mine, its in zip(self._rows, other._rows, strict=True):
            its.keys, its.values = mine.keys, mine.values
            its.select(places, None)
        return other

    def stand(self, lengths: Integers, device: torch.device) -> int:
        """Says where the first rows (n,) end: there the next step writes; returns how far it sees."""
        seen = _whole_blocks(int(lengths.max()) + 1)
        ends = torch.arange(len(lengths), device=device), torch.from_numpy(lengths).to(device)
        for layer in self._rows:
            layer.seen, layer.ends = seen, ends
        return seen


class _Rows(DynamicLayer):
    """One layer: keys and values (rows, key heads, positions, width)."""

    keys: torch.Tensor  # pyright: ignore[reportIncompatibleVariableOverride]
    values: torch.Tensor  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys[:0, :, :0], values[:0, :, :0]
        self.seen = 0
        self.ends: tuple[torch.Tensor, ...] = ()
        self.is_initialized = True

    def fit(self, n_rows: int, positions: int) -> None:
        """At most twice of what is needed stays."""
        rows, width = self.keys.shape[0], self.keys.shape[2]
        if n_rows <= rows <= 2 * n_rows and positions <= width <= 2 * positions:
            return
        if not n_rows <= rows <= 2 * n_rows:
            rows = n_rows + n_rows // 4
        resized = [_resized(tensor, rows, positions) for tensor in (self.keys, self.values)]
        self.keys, self.values = resized

    def select(self, places: Sequence[int], moves: list[tuple[int, int]] | None) -> None:
        for tensor in (self.keys, self.values) if moves is not None else ():
            to, place = (list(column) for column in zip(*(moves or ()), strict=True))
            tensor[to] = tensor[place]
        if moves is None:
            index = torch.tensor(places, dtype=torch.long, device=self.keys.device)
            chosen = self.keys[index], self.values[index]
            self.keys, self.values = chosen

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *_: Any,  # noqa: ANN401 - transformers passes what other layers take
        **__: Any,  # noqa: ANN401
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds a position to each of the first rows, and returns all that they have."""
        rows, ends = self.ends
        self.keys[rows, :, ends] = key_states[:, :, 0]
        self.values[rows, :, ends] = value_states[:, :, 0]
        return self.keys[: len(rows), :, : self.seen], self.values[: len(rows), :, : self.seen]

    def get_seq_length(self) -> int:
        """What transformers takes for the positions before a step's."""
        return self.seen - 1


def _whole_blocks(positions: int) -> int:
    return -(-positions // BLOCK) * BLOCK


def _resized(tensor: torch.Tensor, rows: int, positions: int) -> torch.Tensor:
    heads, width = tensor.shape[1], tensor.shape[3]
    # Zeros: what no row has yet is multiplied by weights of 0, and must be no NaN.
    other = tensor.new_zeros(rows, heads, positions, width)
    of_both = tuple(slice(min(sizes)) for sizes in zip(tensor.shape, other.shape, strict=True))
    other[of_both] = tensor[of_both]
    return other
