"""Which waiting requests may begin: in their order, as rows and places for adapters become free."""

from collections.abc import Iterable
from pathlib import Path

from backends.local.decoding import MAX_POSITIONS, MAX_ROWS
from backends.local.inference_requests import Generation, Request


class Admission:
    """What is taken of a device, and who is next.

    Requests are to be asked about in the order in which they wait. One that can't begin yet claims what
    it needs all the same, so that those behind it get only what it leaves: nobody waits for ever.
    """

    def __init__(
        self, running: Iterable[Generation], adapters: Iterable[Path | None], max_adapters: int
    ) -> None:
        running = list(running)
        self._rows = sum(request.unfinished for request in running)
        self._positions = sum(request.positions for request in running)
        self._adapters = {adapter for adapter in adapters if adapter is not None}
        self._max_adapters = max_adapters
        self._rows_wanted, self._adapter_wanted = False, False

    def may_begin(self, request: Request) -> bool:
        """Whether it may; what it needs is then taken, or claimed."""
        # Both, in any case: each claims.
        has_adapter = self._take_adapter(request.adapter)
        has_room = not isinstance(request, Generation) or self._take_room(request)
        return has_adapter and has_room

    def _take_adapter(self, adapter: Path | None) -> bool:
        """At most so many as fit the memory: any more would be read from disk again for every token."""
        if adapter is None:
            return True
        if self._adapter_wanted or len(self._adapters | {adapter}) > self._max_adapters:
            self._adapter_wanted = True
            return False
        self._adapters.add(adapter)
        return True

    def _take_room(self, request: Generation) -> bool:
        """One alone always fits."""
        rows, positions = self._rows + request.unfinished, self._positions + request.positions
        fits = not self._rows or (rows <= MAX_ROWS and positions <= MAX_POSITIONS)
        if self._rows_wanted or not fits:
            self._rows_wanted = True
            return False
        self._rows, self._positions = rows, positions
        return True
