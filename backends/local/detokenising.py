"""Tokens back to text as they come: bytes of single tokens, characters split over tokens, stop strings."""

import codecs
import json
import re
from collections.abc import Iterable
from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """The bytes that each token of a vocabulary stands for; special tokens stand for none."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        self._added = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items()}
        kinds = _decoder_kinds(tokenizer)
        self._byte_level = "ByteLevel" in kinds
        self.drops_first_space = bool(kinds & {"Strip", "Metaspace"})
        """Whether the tokenizer's own decoder leaves out a space that a text begins with."""
        self._known: dict[int, bytes] = {}

    def of(self, token: int) -> bytes:
        """The bytes of a token, which may be a part of a character only."""
        if token not in self._known:
            self._known[token] = self._find(token)
        return self._known[token]

    def is_fallback(self, token: int) -> bool:
        """Whether the token is a single byte's, beside those of whole characters."""
        piece = self._tokenizer.convert_ids_to_tokens(token)
        return not self._byte_level and isinstance(piece, str) and bool(_BYTE.fullmatch(piece))

    def _find(self, token: int) -> bytes:
        if token in self._special:
            return b""
        if token in self._added:
            return self._added[token].encode()
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if not isinstance(piece, str):  # a row of the output layer that no token has
            return b""
        if self._byte_level:
            return b"".join(_BYTE_OF.get(character, character.encode()) for character in piece)
        if one := _BYTE.fullmatch(piece):
            return bytes.fromhex(one[1])
        return piece.replace("▁", " ").encode()


def _decoder_kinds(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return set()
    decoder = json.loads(backend.to_str()).get("decoder") or {}
    return {part["type"] for part in decoder.get("decoders", [decoder]) if "type" in part}


def _byte_alphabet() -> dict[str, bytes]:
    """The printable characters that byte-level BPE writes bytes as (GPT-2's bytes_to_unicode)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): bytes([byte]) for byte in printable}
    return alphabet | {chr(256 + i): bytes([byte]) for i, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()


class TextStream:
    """The text of one answer. What may still become a character or a stop string is held back."""

    def __init__(self, of_tokens: TokenBytes, stop: tuple[str, ...]) -> None:
        self._of_tokens = of_tokens
        self._stop = stop
        # What is no UTF-8 becomes U+FFFD, as the tokenizers' own decoders have it.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._at_beginning = of_tokens.drops_first_space
        self.stopped = False
        """Whether a stop string was met; the text ends before it."""

    def add(self, token: int) -> str:
        """The text that is certain now and was not before."""
        self._held += self._decoder.decode(self._of_tokens.of(token))
        if self._at_beginning and self._held:
            self._held = self._held.removeprefix(" ")
            self._at_beginning = False
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._may_become_stop())

    def end(self) -> str:
        """What was held back, once no token follows."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(b"", final=True)
        return self._release(len(self._held))

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text

    def _may_become_stop(self) -> int:
        """The length of the longest end of the text that some stop string begins with."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0


def text_of(tokens: Iterable[int], of_tokens: TokenBytes) -> str:
    """The whole text of an answer's tokens."""
    stream = TextStream(of_tokens, ())
    return "".join(map(stream.add, tokens)) + stream.end()
