"""A server as the tokenizer: asked for many texts together, and for none a second time.

What it said is kept on this machine (in the user's state directory), so that starting again asks for next
to nothing. It is kept under the tokens of a probe as well: at the same address another model may be served
by the same name.
"""

import hashlib
import json
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import platformdirs
from openai import BaseModel

from backends.openai_api.concurrency import in_any_order
from backends.openai_api.connection import Connection, RequestFailed
from backends.openai_api.failures import Kind

_log = logging.getLogger(__name__)

_PROBE = "It's 2026: 12345 tokenizers can't agree, whatever\n\n    they.read(UPPER_case) <s> x!=y"
_MOST_TEXTS = 500
_MOST_CHARACTERS = 500_000
"""Of one request: well below what servers take."""
_AT_ONCE = 20
"""Requests to a server that takes one text each."""

Tokens = tuple[int, ...]


class Tokenized(BaseModel):
    """The tokens of a text or chat, or a list of those of several; not checked by the SDK."""

    tokens: list[Any]


async def post_tokenize(connection: Connection, body: dict[str, Any]) -> Tokenized:
    """The server's `/tokenize` in vLLM's form; it stands beside /v1, not under it."""
    url = f"{connection.address.removesuffix('/v1')}/tokenize"
    return await connection.client.post(url, cast_to=Tokenized, body=body)


class ServerTokenizer:
    """Cuts texts into tokens as one model of a server does. Raises ServiceError, ModelError."""

    def __init__(self, connection: Connection, model: str) -> None:
        self._connection = connection
        self._model = model
        self._known: dict[str, Tokens] = {}
        self._takes_lists = True
        self._kept: _Kept | None = None
        self._lock = threading.Lock()  # strategies ask from threads

    def __call__(self, text: str) -> Tokens:
        """The text's tokens."""
        if text not in self._known:
            self.learn([text])
        return self._known[text]

    def learn(self, texts: Iterable[str]) -> None:
        """Finds out what is not known of these texts, asking for as many at once as the server takes."""
        with self._lock:
            unknown = list(dict.fromkeys(text for text in texts if text not in self._known))
            if not unknown:
                return
            if self._kept is None:
                probed = self._connection.run(self._one(_PROBE))
                self._kept = _Kept([self._connection.address, self._model, *map(str, probed)])
            self._known |= self._kept.read(unknown)
            for part in _parts([text for text in unknown if text not in self._known]):
                found = self._connection.run(self._together(part))
                self._known |= found
                self._kept.write(found)

    async def _together(self, texts: Sequence[str]) -> dict[str, Tokens]:
        if len(texts) > 1 and self._takes_lists:
            found = await self._list(texts)
            if found is not None:
                return found
            self._takes_lists = False

        async def one(text: str) -> tuple[str, Tokens]:
            return text, await self._one(text)

        return {text: tokens async for text, tokens in in_any_order(one, texts, _AT_ONCE)}

    async def _list(self, texts: Sequence[str]) -> dict[str, Tokens] | None:
        """None where the server takes one text a request (vLLM)."""
        body = self._body(list(texts))
        try:
            answer = await self._connection.tried(
                "tokenize", lambda: post_tokenize(self._connection, body)
            )
        except RequestFailed as error:
            if error.failure.kind is not Kind.REFUSED or error.failure.is_about(self._model):
                raise error.failure.as_error("tokenize", self._model) from error
            return None
        told = getattr(answer, "tokens", None)
        if not isinstance(told, list) or len(told) != len(texts):
            return None
        if not all(isinstance(tokens, list) for tokens in told):
            return None
        return {text: tuple(tokens) for text, tokens in zip(texts, told, strict=True)}

    async def _one(self, text: str) -> Tokens:
        answer = await self._connection.call(
            "tokenize",
            lambda: post_tokenize(self._connection, self._body(text)),
            model=self._model,
        )
        return tuple(answer.tokens)

    def _body(self, prompt: str | list[str]) -> dict[str, Any]:
        return {"model": self._model, "prompt": prompt, "add_special_tokens": False}


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    part: list[str] = []
    size = 0
    for text in texts:
        if part and (len(part) == _MOST_TEXTS or size + len(text) > _MOST_CHARACTERS):
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        yield part


class _Kept:
    """What one tokenizer is known to do. Where the disk is full or not ours, nothing is kept."""

    def __init__(self, of: Sequence[str]) -> None:
        self._of = "\0".join(of)
        self._path: Path = platformdirs.user_state_path("kaarel-bet") / "tokens.sqlite"

    def read(self, texts: Sequence[str]) -> dict[str, Tokens]:
        """The tokens of those texts that are there."""
        found: dict[str, Tokens] = {}
        if not self._path.exists():
            return found
        try:
            with closing(self._open()) as database:
                for text in texts:
                    query = "SELECT tokens FROM tokens WHERE key = ?"
                    for (tokens,) in database.execute(query, (self._key(text),)):
                        found[text] = tuple(json.loads(tokens))
        except (OSError, sqlite3.Error, ValueError) as error:
            _log.debug("%s: %s", self._path, error)
        return found

    def write(self, found: dict[str, Tokens]) -> None:
        rows = [(self._key(text), json.dumps(tokens)) for text, tokens in found.items()]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as database, database:
                database.executemany("INSERT OR REPLACE INTO tokens VALUES (?, ?)", rows)
        except (OSError, sqlite3.Error) as error:
            _log.debug("%s: %s", self._path, error)

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path)
        database.execute("CREATE TABLE IF NOT EXISTS tokens (key BLOB PRIMARY KEY, tokens TEXT)")
        return database

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self._of}\0{text}".encode(errors="surrogatepass")).digest()
