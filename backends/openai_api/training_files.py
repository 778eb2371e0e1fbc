"""Training files on their way to the service: checked, then uploaded once by their content."""

import hashlib
from pathlib import Path

import openai
from openai.types import FileObject

from backends.data import TRAINING_EXAMPLE, TrainingExample
from backends.errors import DataError
from backends.jsonl import read_jsonl
from backends.openai_api.connection import Connection

_MOST_BYTES = 512 * 1024**2
_FEWEST_EXAMPLES = 10


def check_training_file(path: Path, *, chat_only: bool) -> list[TrainingExample]:
    """The examples of a file that the service would take.

    The format's rules: https://platform.openai.com/docs/guides/supervised-fine-tuning#formatting-your-data.

    Raises:
        DataError: it would not; names the file, and the line where it is one.
    """
    examples = read_jsonl(path, TRAINING_EXAMPLE)
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"{path}: larger than 512 MB, the most that the service takes")
    for number, example in enumerate(examples, start=1):
        if chat_only and example.messages is None:
            raise DataError(
                f"{path}, line {number}: OpenAI's models are fine-tuned on 'messages', not on 'prompt' "
                "and 'completion'"
            )
    if len(examples) < _FEWEST_EXAMPLES:
        raise DataError(
            f"{path}: {len(examples)} examples; the service takes {_FEWEST_EXAMPLES} or more"
        )
    return examples


async def upload(connection: Connection, path: Path) -> str:
    """The id of the service's file with this content, uploaded if it is not there yet.

    Files carry no metadata, so the content's SHA-256 is their name.
    """
    content = path.read_bytes()
    name = f"{hashlib.sha256(content).hexdigest()}.jsonl"

    async def find_or_send() -> FileObject:
        # An upload that got no answer may have arrived: every attempt looks first.
        found = await _find(connection, name, len(content))
        if found is not None:
            return found
        return await connection.client.files.create(file=(name, content), purpose="fine-tune")

    return (await connection.call(f"upload {path.name}", find_or_send)).id


async def _find(connection: Connection, name: str, size: int) -> FileObject | None:
    try:
        async for file in connection.client.files.list(purpose="fine-tune"):
            if file.filename == name and file.bytes == size and file.status != "error":
                return file
    except openai.NotFoundError:
        return None  # some providers list no files
    return None
