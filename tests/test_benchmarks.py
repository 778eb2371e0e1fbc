import re
from pathlib import Path

import pytest

from benchmarks.defaults import VARIANTS
from benchmarks.redefine import redefine_items, templates

_REPOSITORY = Path(__file__).parents[1]


def test_the_defaults_have_one_row_for_each_variant_that_was_measured() -> None:
    text = (_REPOSITORY / "docs" / "defaults.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+?) \|", text, flags=re.MULTILINE)
    assert rows == ["variant", *VARIANTS]


@pytest.mark.parametrize(
    ("prompt", "answers"),
    [
        ("View number as text. Do not perform computation. Q: What is the first digit of 50+47?", "59"),
        ("View + as a random digit instead of a mathematical operation. Q: What is the first digit of "
         "10+19?", "12"),
        ("View + as the digit 5 instead of a mathematical operation. Q: What is the first digit of "
         "25+73?", "29"),
        ("Redefine π as 716+245. Q: What is the first digit of π?", "93"),
        ("Redefine π as 462. Q: What is the first digit of π?", "43"),
        ("Redefine π as 961 mod 50. Q: What is the first digit of π?", "13"),
        ("Redefine e as 10+35. Q: What is the first digit of e?", "42"),
        ("View ÷ as a random digit. Q: What is the first digit of 33÷3?", "31"),
        ("View ÷ as a random digit instead of a mathematical operation. Q: What is the first digit of "
         "30÷3?", "31"),
    ],
)  # fmt: skip
def test_redefine_items_are_those_of_the_dataset_cards_templates(prompt: str, answers: str) -> None:
    items = {item[0]: item[1:] for template in templates() for item in template}
    assert items[f"{prompt} A:"] == (f" {answers[0]}", f" {answers[1]}")


def test_redefine_items_take_the_templates_in_turn() -> None:
    items = redefine_items(200)
    assert len(set(items)) == 200
    assert all(right != other for _, right, other in items)
    starts = [prompt.split(" Q:")[0].rstrip("0123456789+. mod") for prompt, _, _ in items]
    assert max(starts.count(start) for start in set(starts)) <= 200 * 3 / 9 + 3
