"""Training files, checked before they go to the service."""

from pathlib import Path

from backends.data import EXAMPLES, AnyExample, PreferenceExample, TrainingMethod
from backends.errors import DataError
from backends.jsonl import read_jsonl

_MOST_BYTES = 512 * 1024**2
_FEWEST_EXAMPLES = 10


def check_training_file(path: Path, method: TrainingMethod, *, chat_only: bool) -> list[AnyExample]:
    """The examples, or preferences, of a file that the service would take.

    The formats' rules: https://platform.openai.com/docs/guides/supervised-fine-tuning#formatting-your-data,
    https://platform.openai.com/docs/guides/direct-preference-optimization.

    Raises:
        DataError: it would not; names the file, and the line where it is one.
    """
    examples: list[AnyExample] = read_jsonl(path, EXAMPLES[method])
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"{path}: larger than 512 MB, the most that the service takes")
    for number, example in enumerate(examples, start=1):
        if not chat_only or example.prompt is None:
            continue
        is_preference = isinstance(example, PreferenceExample)
        raise DataError(
            f"{path}, line {number}: OpenAI's models are fine-tuned on "
            f"{'chats (input)' if is_preference else 'messages'}, not on texts ('prompt')"
        )
    if len(examples) < _FEWEST_EXAMPLES:
        raise DataError(
            f"{path}: {len(examples)} examples; the service takes {_FEWEST_EXAMPLES} or more"
        )
    return examples
