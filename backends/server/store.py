"""What the server remembers: documents in one SQLite file, read and written by this process alone.

Every change is on disk when the call returns (write-ahead log, full synchronisation), so a killed server
loses nothing. Documents are JSON, so reading them back can run no code.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from backends.errors import SettingsError

_FORMAT = 1

Document = TypeVar("Document", bound=BaseModel)


@dataclass(frozen=True)
class Page(Generic[Document]):
    """Some documents of a list and whether more come after them."""

    documents: list[Document]
    has_more: bool


class Store:
    """The database. Its methods and those of its collections may be called from any thread."""

    def __init__(self, path: Path) -> None:
        """Opens or creates it.

        Raises:
            SettingsError: the file was written by a newer version, or is no database.
        """
        self._lock = threading.RLock()
        self._depth = 0
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.DatabaseError as error:
            raise SettingsError(f"{path}: not a database of this server ({error})") from error
        if version > _FORMAT:
            raise SettingsError(f"{path}: written by a newer version of kaarel-bet")
        self._connection.execute(f"PRAGMA user_version = {_FORMAT}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes inside are made, or none; may be nested."""
        with self._lock:
            if self._depth == 0:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
                if self._depth == 1:
                    self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back already where the disk is full.
                if self._depth == 1 and self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    def execute(self, statement: str, *values: object) -> list[Any]:
        """The rows a statement gives."""
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()


class Collection(Generic[Document]):
    """Documents of one kind in the order they were added, found by their `id`.

    `owner` is the id of the document that some belong to, as events do to a job.
    """

    def __init__(self, store: Store, name: str, kind: type[Document]) -> None:
        self._store = store
        self._table = name
        self._kind = kind
        store.execute(
            f"CREATE TABLE IF NOT EXISTS {name} (position INTEGER PRIMARY KEY AUTOINCREMENT, "
            "id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, document TEXT NOT NULL)"
        )
        store.execute(f"CREATE INDEX IF NOT EXISTS {name}_owner ON {name} (owner, position)")

    def add(self, identifier: str, document: Document, owner: str = "") -> None:
        """Puts a new document at the end."""
        self._store.execute(
            f"INSERT INTO {self._table} (id, owner, document) VALUES (?, ?, ?)",
            identifier,
            owner,
            document.model_dump_json(),
        )

    def get(self, identifier: str) -> Document | None:
        """The document of that id."""
        rows = self._store.execute(f"SELECT document FROM {self._table} WHERE id = ?", identifier)
        return self._kind.model_validate_json(rows[0][0]) if rows else None

    def change(self, identifier: str, change: Callable[[Document], Document]) -> Document:
        """Replaces a document by what `change` makes of it. Raises KeyError where there is none."""
        with self._store.transaction():
            document = self.get(identifier)
            if document is None:
                raise KeyError(identifier)
            changed = change(document)
            self._store.execute(
                f"UPDATE {self._table} SET document = ? WHERE id = ?",
                changed.model_dump_json(),
                identifier,
            )
        return changed

    def remove(self, identifier: str) -> None:
        """Deletes the document of that id, if there."""
        self._store.execute(f"DELETE FROM {self._table} WHERE id = ?", identifier)

    def count(self) -> int:
        """How many there are."""
        return self._store.execute(f"SELECT COUNT(*) FROM {self._table}")[0][0]

    def all(self, owner: str = "") -> list[Document]:
        """All of an owner, oldest first."""
        rows = self._store.execute(
            f"SELECT document FROM {self._table} WHERE owner = ? ORDER BY position", owner
        )
        return [self._kind.model_validate_json(text) for (text,) in rows]

    def page(
        self,
        *,
        limit: int,
        after: str | None = None,
        owner: str = "",
        oldest_first: bool = False,
        keep: Callable[[Document], bool] = lambda _: True,
    ) -> Page[Document]:
        """Up to `limit` of the documents that `keep` wants, from the one after `after` on.

        Raises:
            KeyError: there is no document `after`.
        """
        start = self._position(after) if after is not None else None
        comparison, direction = (">", "ASC") if oldest_first else ("<", "DESC")
        found: list[Document] = []
        while len(found) <= limit:
            rows = self._store.execute(
                f"SELECT position, document FROM {self._table} WHERE owner = ? AND "
                f"(? IS NULL OR position {comparison} ?) ORDER BY position {direction} LIMIT ?",
                *(owner, start, start, limit + 1),
            )
            if not rows:
                break
            start = rows[-1][0]
            documents = (self._kind.model_validate_json(text) for _, text in rows)
            found += [document for document in documents if keep(document)]
        return Page(found[:limit], len(found) > limit)

    def _position(self, identifier: str) -> int:
        rows = self._store.execute(f"SELECT position FROM {self._table} WHERE id = ?", identifier)
        if not rows:
            raise KeyError(identifier)
        return rows[0][0]
