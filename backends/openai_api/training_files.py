"""Training files, checked before they go to the service."""

from pathlib import Path

from backends.data import TRAINING_EXAMPLE, TrainingExample
from backends.errors import DataError
from backends.jsonl import read_jsonl

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
