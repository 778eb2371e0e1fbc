"""Files on their way to the service: uploaded once by their content."""

import codecs
import hashlib
from pathlib import Path
from typing import Literal

import openai
from openai.types import FileObject

from backends.openai_api.connection import Connection


async def upload(
    connection: Connection, path: Path, purpose: Literal["fine-tune", "batch"] = "fine-tune"
) -> str:
    """The id of the service's file with this content, uploaded if it is not there yet.

    Files carry no metadata, so the content's SHA-256 is their name.
    """
    # An editor's byte order mark and blank last lines are no records, and a service may take them for some.
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8).rstrip() + b"\n"
    name = f"{hashlib.sha256(content).hexdigest()}.jsonl"

    async def find_or_send() -> FileObject:
        # An upload that got no answer may have arrived: every attempt looks first.
        found = await _find(connection, name, len(content), purpose)
        if found is not None:
            return found
        return await connection.client.files.create(file=(name, content), purpose=purpose)

    return (await connection.call(f"upload {path.name}", find_or_send)).id


async def _find(connection: Connection, name: str, size: int, purpose: str) -> FileObject | None:
    try:
        async for file in connection.client.files.list(purpose=purpose):
            if file.filename == name and file.bytes == size and file.status != "error":
                return file
    except openai.NotFoundError:
        return None  # some providers list no files
    return None
