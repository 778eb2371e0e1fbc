"""Items after the nine templates on redefine-math's dataset card (inverse-scaling/redefine-math).

Generated, not the official rows: the right answer follows the redefinition, the other one ignores it.
"""

import itertools
import random

from kaarel_bet.experiments.inverse_scaling.items import Row

QUESTION = tuple[str, str, str]
"""Prompt, right answer, other answer; the answers carry the leading space."""


def _digit(number: int) -> str:
    return f" {str(number)[0]}"


def _sum_template(instruction: str, right: str | None) -> list[QUESTION]:
    """`right` None: the right answer is the first digit of the text itself."""
    items = []
    for a in range(10, 100):
        for b in range(10, 100):
            answer, other = right or _digit(a), _digit(a + b)
            if answer != other:
                prompt = f"{instruction} Q: What is the first digit of {a}+{b}? A:"
                items.append((prompt, answer, other))
    return items


def _symbol_template(symbol: str, literal: str, values: dict[str, int]) -> list[QUESTION]:
    return [
        (
            f"Redefine {symbol} as {text}. Q: What is the first digit of {symbol}? A:",
            _digit(value),
            literal,
        )
        for text, value in values.items()
        if _digit(value) != literal
    ]


def _division_template(instruction: str) -> list[QUESTION]:
    items = []
    for quotient in range(4, 34):
        for divisor in range(2, 10):
            product = quotient * divisor
            right, other = _digit(product), _digit(quotient)
            if 10 <= product < 100 and right != other:
                prompt = f"{instruction} Q: What is the first digit of {product}÷{divisor}? A:"
                items.append((prompt, right, other))
    return items


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
    """`n` different items, the templates in turn as long as they have items left.

    Raises:
        ValueError: there are not as many.
    """
    draw = random.Random(seed)
    pools = [draw.sample(items, k=len(items)) for items in templates()]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*pools))
    items = list(itertools.islice((item for item in in_turn if item), n))
    if len(items) < n:
        raise ValueError(f"there are only {len(items)} items")
    return items


def redefine_rows(n: int, seed: int) -> list[Row]:
    """The same as rows, the right answer's place drawn at random.

    Raises:
        ValueError: there are not as many.
    """
    draw = random.Random(f"redefine_math/{seed}")
    rows = []
    for prompt, right, other in redefine_items(n, seed):
        answer = draw.randrange(2)
        classes = (right, other) if answer == 0 else (other, right)
        rows.append(Row(prompt=prompt, classes=classes, answer=answer))
    return rows
