"""The responses that a later one can continue: the newest, in memory."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openai.types.responses import Response

_MOST_CHARACTERS = 2**26
"""Of all conversations together; what is older is forgotten."""


@dataclass(frozen=True)
class Conversation:
    """A response and all turns up to it, its own included; instructions don't carry over.

    Turns are in the form of chat templates.
    """

    response: Response
    turns: Sequence[dict[str, Any]]

    @property
    def size(self) -> int:
        """How many characters it takes, and a little for itself."""
        return 1000 + sum(len(str(turn)) for turn in self.turns)


class Conversations:
    """Those that are remembered; belongs to the server's event loop."""

    def __init__(self, most_characters: int = _MOST_CHARACTERS) -> None:
        self._most = most_characters
        self._size = 0
        self._kept: OrderedDict[str, Conversation] = OrderedDict()

    def get(self, identifier: str) -> Conversation | None:
        """The conversation that ends with this response."""
        return self._kept.get(identifier)

    def keep(self, conversation: Conversation) -> None:
        """Remembers one more, and forgets the oldest where there are too many."""
        self._kept[conversation.response.id] = conversation
        self._size += conversation.size
        while self._size > self._most:
            self._size -= self._kept.popitem(last=False)[1].size

    def remove(self, identifier: str) -> Conversation | None:
        """Forgets one; None where there is none."""
        removed = self._kept.pop(identifier, None)
        self._size -= removed.size if removed else 0
        return removed
