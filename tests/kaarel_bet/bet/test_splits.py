"""Splits keep their parts apart."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.errors import SettingsError
from kaarel_bet.bet.schema import Split
from kaarel_bet.bet.splits import Parts, normal, split_rows, stratified_order
from kaarel_bet.bet.tables import check_no_leak
from kaarel_bet.experiments.interface import Row
from kaarel_bet.generators import Surroundings, generate

_ROWS: list[dict[str, Any]] = [
    {"id": f"row-{n}"} | row
    for n, row in enumerate(
        generate("redefine_math", {"n": 400}, Surroundings(Path(), lambda _: (), 0, "data.x"))[0]
    )
]
_ALIKE = [{"id": str(n), "prompt": text} for n, text in enumerate(["it", "this", "this", "This"])]
_RULES = {
    "random": {},
    "template": {"leave_out": {"column": "template", "n": 3}},
    "number": {"apart": "numbers"},
}


def split(rows: Sequence[Row], seed: int = 0, **rules: Any) -> Parts:
    base = {
        "test": 60,
        "train": "rest",
        "stratify": ["template", "answer_index"],
        "together": "prompt",
    }
    return split_rows(rows, Split.model_validate(base | rules, strict=False), seed, "data.x.split")


@settings(max_examples=30)
@given(
    by=st.sampled_from(list(_RULES)),
    n_test=st.integers(5, 60),
    seed=st.integers(0, 1000),
    twice=st.lists(st.integers(0, 399), max_size=20),
)
def test_no_prompt_is_on_both_sides(by: str, n_test: int, seed: int, twice: list[int]) -> None:
    again = [
        _ROWS[i] | {"prompt": f" {_ROWS[i]['prompt'].upper()}", "id": f"again-{place}"}
        for place, i in enumerate(twice)
    ]
    found = split([*_ROWS, *again], seed, test=n_test, **_RULES[by]).rows
    assert check_no_leak(found["train"], found["test"], "prompt") == 0
    ids = [row["id"] for part in found.values() for row in part]
    assert len(set(ids)) == len(ids) <= len(_ROWS) + len(again)
    assert len(found["test"]) <= n_test


@settings(max_examples=30)
@given(n_test=st.integers(5, 200), seed=st.integers(0, 1000))
def test_a_random_split_loses_no_row_and_has_every_stratum_in_proportion(
    n_test: int, seed: int
) -> None:
    found = split(_ROWS, seed, test=n_test).rows
    assert len(found["test"]) == n_test
    assert len(found["train"]) == len(_ROWS) - n_test
    everywhere = Counter((row["template"], row["answer_index"]) for row in _ROWS)
    tested = Counter((row["template"], row["answer_index"]) for row in found["test"])
    for stratum, count in everywhere.items():
        assert abs(tested[stratum] - count * n_test / len(_ROWS)) <= 1.5


@settings(max_examples=20)
@given(n_left_out=st.integers(1, 8), seed=st.integers(0, 1000))
def test_values_left_out_are_tested_alone(n_left_out: int, seed: int) -> None:
    found = split(_ROWS, seed, leave_out={"column": "template", "n": n_left_out})
    tested = {row["template"] for row in found.rows["test"]}
    assert len(tested) == n_left_out
    assert not tested & {row["template"] for row in found.rows["train"]}
    assert found.notes["template left out"] == sorted(tested)


@settings(max_examples=20)
@given(n_test=st.integers(5, 80), seed=st.integers(0, 1000))
def test_no_entry_of_a_list_is_on_both_sides(n_test: int, seed: int) -> None:
    found = split(_ROWS, seed, test=n_test, apart="numbers")
    sides = [{n for row in part for n in row["numbers"]} for part in found.rows.values()]
    assert not sides[0] & sides[1]
    kept = sum(len(part) for part in found.rows.values())
    assert found.notes["rows left out"] == len(_ROWS) - kept


@pytest.mark.parametrize(
    ("by", "n_test", "digest"),
    [
        ("random", 200, "ec83baa57e7f7754"),
        ("template", 200, "869cfc7a64a9fe9b"),
        ("number", 200, "ed87f14df67665e1"),
        ("number", 60, "32867ee4cbc6122b"),
        ("number", 150, "af11f82ffda6df72"),
    ],
)
def test_the_sides_are_those_of_before_bets_were_files(by: str, n_test: int, digest: str) -> None:
    """The hashes are of the tested and the trained rows before then, in their order."""
    around = Surroundings(Path(), lambda _: (), 0, "data.x")
    rows = generate("redefine_math", {"n": 600}, around)[0]
    named = [{"id": f"row-{n:04}"} | row for n, row in enumerate(rows, start=1)]
    found = split(named, test=n_test, **_RULES[by]).rows
    sides = [[row["id"] for row in found[side]] for side in ("test", "train")]
    assert hashlib.sha256(json.dumps(sides).encode()).hexdigest()[:16] == digest


def test_shares_and_several_parts() -> None:
    found = split(_ROWS, test=0.25, validation=40).rows
    assert {name: len(part) for name, part in found.items()} == {
        "test": 100,
        "train": 260,
        "validation": 40,
    }
    assert len({row["id"] for part in found.values() for row in part}) == 400


def test_the_same_seed_splits_alike_and_another_does_not() -> None:
    one, same, other = (split(_ROWS, seed).rows["test"] for seed in (0, 0, 1))
    assert one == same != other


@pytest.mark.parametrize(
    ("rows", "rules", "says"),
    [
        (_ROWS, {"test": 300, "validation": 0.5}, "test and validation: 500 are more rows than the 400"),
        (_ALIKE, {"test": 2, "stratify": []}, "leaves fewer than two rows for 'test' of the 4"),
        (_ROWS, {"apart": "prompt"}, "apart: prompt must be a column of lists"),
        (_ROWS, {"leave_out": {"column": "template", "n": 9}}, "9 of the 9 values of template"),
        (_ROWS[:9], {"test": 9}, "leaves no row for 'train'"),
        (_ROWS[:9], {"test": 12}, "test: 12 are more rows than the 9"),
        (_ROWS, {"stratify": ["tempalte"]}, "no column 'tempalte'; did you mean 'template'"),
        (_ROWS, {"leave_out": {"column": "x", "n": 1}}, "no column 'x'"),
    ],
)  # fmt: skip
def test_splits_that_cannot_be_are_refused(rows: list[Row], rules: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as raised:
        split(rows, **rules)
    assert str(raised.value).startswith("data.x.split")


def test_every_beginning_of_a_stratified_order_is_in_proportion() -> None:
    order = stratified_order(_ROWS, ["template"], random.Random(0))
    assert sorted(row["id"] for row in order) == sorted(row["id"] for row in _ROWS)
    for n in (18, 36, 90, 180):
        counts = Counter(row["template"] for row in order[:n])
        assert all(abs(count - n / 9) <= 2 for count in counts.values())


def test_case_and_white_space_do_not_tell_values_apart() -> None:
    assert normal("  A\tb ") == normal("a B")
    assert normal(3) == "3"
