"""What models are told: tasks as chats that end with an output grid, and questions that need counting.

Chats that are longer than the limit are left out and counted, never cut.

The questions are after iteration 2 of arc24 (https://github.com/ironbar/arc24), which asked whether a model
that learned to count learns ARC better. An object is a set of cells of one colour, connected through their
sides (4-connected), that is as large as it can be. Colour 0 is the background and no object.
"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backends.data import Message, TrainingExample
from backends.errors import SettingsError
from kaarel_bet.experiments.arc.augmentation import SYMMETRY_NAMES, Augmentation
from kaarel_bet.experiments.arc.grids import (
    BACKGROUND,
    N_COLOURS,
    ArcTask,
    Encoding,
    Grid,
    encode,
)
from kaarel_bet.experiments.arc.settings import CountingSettings
from kaarel_bet.experiments.interface import Tokenize

_SYSTEM = (
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
        Message(role="system", content=_SYSTEM),
        Message(role="user", content="\n\n".join([*shown, asked])),
    )


def answer(task: ArcTask, test_index: int, encoding: Encoding) -> str:
    """The right answer to `messages`."""
    return encode(task.test[test_index].output, encoding)


def training_examples(task: ArcTask, encoding: Encoding) -> list[TrainingExample]:
    """One chat a test input, the loss on the output grid alone."""
    found = []
    for index in range(len(task.test)):
        right = Message(role="assistant", content=answer(task, index, encoding))
        found.append(TrainingExample(messages=(*messages(task, index, encoding), right)))
    return found


def leave_one_out(task: ArcTask) -> list[ArcTask]:
    """Each train pair in turn as the test pair of the others; the task's own test pairs are left out.

    What test-time training learns from. Empty for a task with a single train pair.
    """
    if len(task.train) == 1:
        return []
    return [
        ArcTask(
            id=f"{task.id}/leave-{i}", train=(*task.train[:i], *task.train[i + 1 :]), test=(pair,)
        )
        for i, pair in enumerate(task.train)
    ]


_ON_ITS_SIDE = Augmentation(symmetry=SYMMETRY_NAMES.index("transpose"))
"""Rows end with a token of their own, so that a wide grid is longer so."""


@dataclass(frozen=True)
class Lengths:
    """Counts the tokens of a task's texts, prompt and answer; a chat template's own come on top."""

    tokenize: Tokenize
    encoding: Encoding
    limit: int

    def fits(self, task: ArcTask) -> bool:
        """Whether each of the task's prompts is, with its answer, within the limit, however turned."""
        return all(
            self.example_fits(example)
            for form in (task, _ON_ITS_SIDE.apply_task(task))
            for example in training_examples(form, self.encoding)
        )

    def example_fits(self, example: TrainingExample) -> bool:
        """Whether a chat is within the limit."""
        texts = (message.content for message in example.messages or ())
        return sum(len(self.tokenize(text)) for text in texts) <= self.limit

    def longest(self, tasks: Iterable[ArcTask]) -> int:
        """The tokens of the longest grid of the tasks, however turned."""
        grids = {g for task in tasks for pair in task.pairs for g in (pair.input, pair.output)}
        return max(
            len(self.tokenize(encode(form, self.encoding)))
            for grid in grids
            for form in (grid, _ON_ITS_SIDE.apply(grid))
        )


# --- counting ---------------------------------------------------------------------------------------

_COUNTING_SYSTEM = (
    "You answer questions about grids of digits. Digits are colours and 0 is the background. An object is "
    "a group of cells of one colour that touch at their sides."
)

QUESTIONS = (
    "How many objects are there?",
    "What are the areas of the objects, in ascending order?",
    "What is the area of the largest object?",
    "What is the area of the smallest object?",
    "How many objects are there of each colour?",
)

_MIN_SIDE = 2
_MAX_OBJECTS = 8
_MAX_AREA = 12

_Cell = tuple[int, int]


def counting_examples(
    n: int, seed: int, encoding: Encoding, max_side: int
) -> list[TrainingExample]:
    """Chats about n random grids of at most `max_side` rows and columns (2..30).

    Each chat asks all five questions, in a random order; the grid stands before the first. The loss is on
    every answer.
    """
    rng = random.Random(f"counting/{seed}")
    return [_example(_random_grid(rng, max_side), rng, encoding) for _ in range(n)]


def draw_questions(
    by: CountingSettings, lengths: Lengths, seed: int
) -> tuple[Sequence[TrainingExample], Sequence[TrainingExample]]:
    """Chats to train on and chats to ask, about different grids, all within the limit.

    Raises:
        SettingsError: the grids are too large for the limit, or too small for so many to differ.
    """
    wanted = by.n_examples + by.n_test
    # Twice as many, as some are alike.
    drawn = counting_examples(2 * wanted, seed, lengths.encoding, by.max_side)
    different = {}
    for chat in filter(lengths.example_fits, drawn):
        assert chat.messages is not None
        different[chat.messages[1].content.rpartition("\n\n")[0]] = chat  # by the grid
    if len(different) < wanted:
        raise SettingsError(
            f"arc.counting: of {len(drawn)} grids {len(different)} differ and fit arc.max_tokens, not "
            f"the {wanted} of n_examples and n_test; change max_side, or lower these"
        )
    chats = list(different.values())[:wanted]
    return chats[: by.n_examples], chats[by.n_examples :]


def objects(grid: Grid) -> list[tuple[int, int]]:
    """The colours and areas of the objects of a grid, in the order of their first cells, row by row."""
    left = {
        (i, j): colour
        for i, row in enumerate(grid)
        for j, colour in enumerate(row)
        if colour != BACKGROUND
    }
    found = []
    while left:
        start, colour = next(iter(left.items()))
        del left[start]
        area, border = 0, [start]
        while border:
            area += 1
            for cell in _neighbours(border.pop()):
                if left.get(cell) == colour:
                    del left[cell]
                    border.append(cell)
        found.append((colour, area))
    return found


def _example(grid: Grid, rng: random.Random, encoding: Encoding) -> TrainingExample:
    """A chat about a grid with at least one object."""
    found = objects(grid)
    areas = sorted(area for _, area in found)
    colours = sorted(Counter(colour for colour, _ in found).items())
    answers = (
        str(len(found)),
        ", ".join(map(str, areas)),
        str(areas[-1]),
        str(areas[0]),
        ", ".join(f"{colour}: {n}" for colour, n in colours),
    )
    answered = dict(zip(QUESTIONS, answers, strict=True))
    turns = [Message(role="system", content=_COUNTING_SYSTEM)]
    for place, question in enumerate(rng.sample(QUESTIONS, len(QUESTIONS))):
        asked = question if place else f"{encode(grid, encoding)}\n\n{question}"
        turns.append(Message(role="user", content=asked))
        turns.append(Message(role="assistant", content=answered[question]))
    return TrainingExample(messages=tuple(turns))


def _random_grid(rng: random.Random, max_side: int) -> Grid:
    """A grid of random size with blobs of random colours and areas, where there was room for them."""
    rows, columns = rng.randint(_MIN_SIDE, max_side), rng.randint(_MIN_SIDE, max_side)
    cells = {(i, j): BACKGROUND for i in range(rows) for j in range(columns)}
    for _ in range(rng.randint(1, _MAX_OBJECTS)):
        free = [cell for cell, colour in cells.items() if colour == BACKGROUND]
        if not free:
            break
        _grow(cells, rng.choice(free), rng.randint(1, _MAX_AREA), rng)
    return tuple(tuple(cells[i, j] for j in range(columns)) for i in range(rows))


def _grow(cells: dict[_Cell, int], start: _Cell, area: int, rng: random.Random) -> None:
    """Colours up to `area` connected background cells from `start` on; may touch other objects."""
    colour = rng.choice([c for c in range(N_COLOURS) if c != BACKGROUND])
    border = [start]
    while border and area > 0:
        cell = border.pop(rng.randrange(len(border)))
        if cells.get(cell) != BACKGROUND:
            continue
        cells[cell] = colour
        area -= 1
        border += _neighbours(cell)


def _neighbours(cell: _Cell) -> list[_Cell]:
    i, j = cell
    return [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
