"""Files: content on disk under an identifier made here, everything else in the store.

A file's name is data and never part of a path.
"""

import os
import shutil
from pathlib import Path
from typing import BinaryIO, Literal

from openai.types import FileObject

from backends.server.data_dir import DataDirectory
from backends.server.errors import ServiceError, invalid, not_found, too_many
from backends.server.identifiers import new_id, now
from backends.server.records import Records
from backends.server.settings import ServerSettings

Purpose = Literal["fine-tune", "batch", "fine-tune-results", "batch_output"]


class Files:
    """The uploaded files and those that jobs and batches result in."""

    def __init__(self, records: Records, data: DataDirectory, settings: ServerSettings) -> None:
        self._records = records.files
        self._data = data
        self._settings = settings

    def upload(
        self, name: str, content: BinaryIO, purpose: Purpose, lifetime: int | None
    ) -> FileObject:
        """Keeps a file that a client sends; `lifetime` in seconds.

        Raises:
            ServiceError: it is empty, too large, not named `.jsonl`, or one too many.
        """
        if not name.endswith(".jsonl"):
            raise invalid("Invalid file format: the file's name must end in .jsonl.", "file")
        self.remove_expired()
        if self._records.count() >= self._settings.max_files:
            raise too_many(f"There are {self._settings.max_files} files already; delete some.")
        size = content.seek(0, os.SEEK_END)
        content.seek(0)
        if size == 0:
            raise invalid("The file is empty.", "file")
        if size > self._settings.max_file_bytes:
            raise ServiceError(
                413, f"The file is larger than {self._settings.max_file_bytes} bytes.", param="file"
            )
        return self.keep(name, content, purpose, lifetime)

    def keep(
        self, name: str, content: BinaryIO, purpose: Purpose, lifetime: int | None = None
    ) -> FileObject:
        """Stores content as a new file; it is on disk before the store says that it is there."""
        return self.record(self.write(name, content, purpose, lifetime))

    def write(
        self, name: str, content: BinaryIO, purpose: Purpose, lifetime: int | None = None
    ) -> FileObject:
        """Puts content on disk, which is no file before `record`; until then `discard` undoes it."""
        identifier = new_id("file-")
        path = self._data.file(identifier)
        partial = path.with_suffix(".partial")
        try:
            with partial.open("xb") as target:
                shutil.copyfileobj(content, target)
                target.flush()
                os.fsync(target.fileno())
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
        return self._described(identifier, name, purpose, lifetime)

    def adopt(self, name: str, content: Path, purpose: Purpose) -> FileObject:
        """As `write`, of what is on disk already: where there are hard links it takes no room."""
        identifier = new_id("file-")
        _link(content, self._data.file(identifier))
        return self._described(identifier, name, purpose, None)

    def record(self, file: FileObject) -> FileObject:
        """Makes it a file that is there."""
        self._records.add(file.id, file)
        return file

    def discard(self, file: FileObject) -> None:
        """Deletes what was written and not recorded."""
        self._data.file(file.id).unlink(missing_ok=True)

    def _described(
        self, identifier: str, name: str, purpose: Purpose, lifetime: int | None
    ) -> FileObject:
        created = now()
        return FileObject(
            id=identifier,
            object="file",
            bytes=self._data.file(identifier).stat().st_size,
            created_at=created,
            expires_at=None if lifetime is None else created + lifetime,
            filename=name,
            purpose=purpose,
            status="processed",
        )

    def find(self, identifier: str) -> FileObject | None:
        """The file, None where there is none or its time is over."""
        file = self._records.get(identifier)
        if file is None or (file.expires_at is not None and file.expires_at <= now()):
            return None
        return file

    def get(self, identifier: str) -> FileObject:
        """The file. Raises ServiceError (404) where there is none."""
        file = self.find(identifier)
        if file is None:
            raise not_found("File object", identifier)
        return file

    def path(self, identifier: str) -> Path:
        """Where the content is. Raises ServiceError (404) where there is none."""
        return self._data.file(self.get(identifier).id)

    def copy(self, identifier: str, target: Path) -> None:
        """Gives whoever works with a file a copy that outlives its deletion."""
        _link(self.path(identifier), target)

    def delete(self, identifier: str) -> None:
        """Deletes it. Raises ServiceError (404) where there is none."""
        path = self.path(identifier)
        self._records.remove(identifier)
        path.unlink(missing_ok=True)

    def remove_expired(self) -> None:
        """Deletes the files whose time is over."""
        for file in self._records.all():
            if file.expires_at is not None and file.expires_at <= now():
                self._records.remove(file.id)
                self._data.file(file.id).unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # not every file system has them
        shutil.copyfile(source, target)
