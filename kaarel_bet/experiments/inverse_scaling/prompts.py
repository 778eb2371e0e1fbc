"""How items are asked and learned: lm-evaluation-harness's texts, or chats."""

import random
from collections.abc import Sequence

from backends.data import Message, ScoringQuery, TrainingExample
from backends.errors import SettingsError
from kaarel_bet.experiments.inverse_scaling.items import Item, Row
from kaarel_bet.experiments.inverse_scaling.settings import FewShotSettings, Form


def query(item: Item, form: Form, examples: Sequence[Row] = ()) -> ScoringQuery:
    """The item after the examples; candidates are labelled with the index of their class.

    As a text the examples are joined by blank lines (lm-evaluation-harness's `fewshot_delimiter`), and
    classes are appended verbatim after the row's delimiter (its `target_delimiter`). In a chat they are
    earlier turns, and classes lose the leading space.
    """
    if form == "text":
        shown = [f"{example.prompt}{example.delimiter}{_right(example)}" for example in examples]
        prompt = "\n\n".join([*shown, item.prompt])
        candidates = {str(i): item.delimiter + text for i, text in enumerate(item.classes)}
        return ScoringQuery(id=item.id, prompt=prompt, candidates=candidates)
    turns = [message for example in examples for message in _turns(example)]
    return ScoringQuery(
        id=item.id,
        messages=(*turns, Message(role="user", content=item.prompt)),
        candidates={str(i): text.lstrip() for i, text in enumerate(item.classes)},
    )


def check_classes_in_chats(rows: Sequence[Row], task: str) -> None:
    """Raises SettingsError where classes differ in nothing but the leading space that chats leave out."""
    for number, row in enumerate(rows, start=1):
        if len({text.lstrip() for text in row.classes} - {""}) < len(row.classes):
            raise SettingsError(
                f"inverse_scaling.form: chat leaves out leading white space, and without it the classes "
                f"of {task}'s row {number} are not different texts ({', '.join(map(repr, row.classes))}); "
                "use text"
            )


def training_example(row: Row, form: Form) -> TrainingExample:
    """The row with its right class, in the form that it is asked in."""
    if form == "text":
        return TrainingExample(prompt=row.prompt, completion=row.delimiter + _right(row))
    return TrainingExample(messages=tuple(_turns(row)))


def shots(
    train: Sequence[Item], test: Sequence[Item], settings: FewShotSettings, draw: int, seed: int
) -> dict[str, list[Item]]:
    """Test item id -> its examples, from training rows alone, in one of the draws."""
    if settings.choose == "first":
        return {item.id: list(train[: settings.shots]) for item in test}
    rng = random.Random(f"few-shot/{seed}/{draw}")
    if settings.choose == "fixed":
        drawn = rng.sample(train, settings.shots)
        return {item.id: drawn for item in test}
    return {item.id: rng.sample(train, settings.shots) for item in test}


def with_random_labels(rows: Sequence[Item], rng: random.Random) -> list[Item]:
    """The same questions, every class as likely to be called right as the others.

    Shuffling the answers' places would change nothing in a task whose answer always has the same one.
    """
    return [row.model_copy(update={"answer": rng.randrange(len(row.classes))}) for row in rows]


def _right(row: Row) -> str:
    return row.classes[row.answer]


def _turns(row: Row) -> tuple[Message, Message]:
    answer = Message(role="assistant", content=_right(row).lstrip())
    return Message(role="user", content=row.prompt), answer
