"""How tasks are asked: the examples and one test input in a chat, the output grid as the answer."""

from backends.data import Message, TrainingExample
from kaarel_bet.experiments.arc.encodings import Encoding, encode
from kaarel_bet.experiments.arc.grids import ArcTask

SYSTEM = (
    "You solve puzzles from the Abstraction and Reasoning Corpus (ARC). Each example has an input grid "
    "and the output grid that one rule makes of it; digits are colours. Find the rule, and answer with "
    "the output grid of the test input alone."
)


def messages(task: ArcTask, test_index: int, encoding: Encoding) -> tuple[Message, ...]:
    """The chat that asks for one test output: what ARC is, the numbered examples, the test input."""
    shown = [
        f"Example {number}\n\nInput:\n{encode(pair.input, encoding)}\n\n"
        f"Output:\n{encode(pair.output, encoding)}"
        for number, pair in enumerate(task.train, start=1)
    ]
    asked = f"Test\n\nInput:\n{encode(task.test[test_index].input, encoding)}"
    return (
        Message(role="system", content=SYSTEM),
        Message(role="user", content="\n\n".join([*shown, asked])),
    )


def answer(task: ArcTask, test_index: int, encoding: Encoding) -> str:
    """The right answer to `messages`."""
    return encode(task.test[test_index].output, encoding)


def training_examples(task: ArcTask, encoding: Encoding) -> list[TrainingExample]:
    """One chat a test input, the loss on the output grid alone."""
    return [
        TrainingExample(
            messages=(
                *messages(task, index, encoding),
                Message(role="assistant", content=answer(task, index, encoding)),
            )
        )
        for index in range(len(task.test))
    ]


def leave_one_out(task: ArcTask) -> list[ArcTask]:
    """Each train pair in turn as the test pair of the others; the task's own test pairs are left out.

    What test-time training learns from (https://arxiv.org/abs/2411.07279). Empty for a task with a single
    train pair.
    """
    if len(task.train) == 1:
        return []
    return [
        ArcTask(
            id=f"{task.id}/leave-{i}", train=(*task.train[:i], *task.train[i + 1 :]), test=(pair,)
        )
        for i, pair in enumerate(task.train)
    ]
