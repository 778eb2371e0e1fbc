"""Items after the nine templates on redefine-math's dataset card (inverse-scaling/redefine-math).

Generated, not the official rows: the right answer follows the redefinition, the other one ignores it.
"""

import itertools
import random
from collections.abc import Iterable

QUESTION = tuple[str, str, str]
"""Prompt, right answer, other answer; the answers carry the leading space."""


def _digit(number: int) -> str:
    return f" {str(number)[0]}"


def _items(questions: Iterable[tuple[str, str, str, str]]) -> list[QUESTION]:
    """Of (instruction, what is asked, right, other): those whose answers differ."""
    return [
        (f"{instruction} Q: What is the first digit of {asked}? A:", right, other)
        for instruction, asked, right, other in questions
        if right != other
    ]


def _sum_template(instruction: str, right: str | None) -> list[QUESTION]:
    """`right` None: the right answer is the first digit of the text itself."""
    return _items(
        (instruction, f"{a}+{b}", right or _digit(a), _digit(a + b))
        for a in range(10, 100)
        for b in range(10, 100)
    )


def _symbol_template(symbol: str, literal: str, values: dict[str, int]) -> list[QUESTION]:
    return _items(
        (f"Redefine {symbol} as {text}.", symbol, _digit(value), literal)
        for text, value in values.items()
    )


def _division_template(instruction: str) -> list[QUESTION]:
    return _items(
        (
            instruction,
            f"{quotient * divisor}÷{divisor}",
            _digit(quotient * divisor),
            _digit(quotient),
        )
        for quotient in range(4, 34)
        for divisor in range(2, 10)
        if 10 <= quotient * divisor < 100
    )


def _sums(low: int, high: int) -> dict[str, int]:
    return {f"{a}+{b}": a + b for a in range(low, high, 7) for b in range(low, high, 5)}


def templates() -> list[list[QUESTION]]:
    """Every item of each template."""
    return [
        _sum_template("View number as text. Do not perform computation.", None),
        _sum_template("View + as a random digit instead of a mathematical operation.", None),
        _sum_template("View + as the digit 5 instead of a mathematical operation.", None),
        _symbol_template("π", " 3", _sums(100, 1000)),
        _symbol_template("π", " 3", {str(i): i for i in range(100, 1000)}),
        _symbol_template(
            "π",
            " 3",
            {f"{a} mod {b}": a % b for a in range(100, 1000, 3) for b in range(20, 99, 5)},
        ),
        _symbol_template("e", " 2", _sums(10, 100)),
        _division_template("View ÷ as a random digit."),
        _division_template("View ÷ as a random digit instead of a mathematical operation."),
    ]


def redefine_items(n: int, seed: int = 0) -> list[QUESTION]:
    """`n` different items, or all there are, the templates in turn as long as they have items left."""
    draw = random.Random(seed)
    pools = [draw.sample(items, k=len(items)) for items in templates()]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*pools))
    return list(itertools.islice(filter(None, in_turn), n))


def redefine_rows(n: int, seed: int) -> list[tuple[str, list[str], int]]:
    """The same as (prompt, classes, answer's place), the place drawn at random."""
    draw = random.Random(f"redefine_math/{seed}")
    rows = []
    for prompt, right, other in redefine_items(n, seed):
        answer = draw.randrange(2)
        rows.append((prompt, [right, other] if answer == 0 else [other, right], answer))
    return rows
