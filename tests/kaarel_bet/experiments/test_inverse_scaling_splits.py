"""Splits keep their sides apart, and the audit finds what they have in common."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.errors import SettingsError
from kaarel_bet.experiments.inverse_scaling.items import Item, Row, make_items, normal, numbers
from kaarel_bet.experiments.inverse_scaling.leakage import audit
from kaarel_bet.experiments.inverse_scaling.redefine import redefine_rows
from kaarel_bet.experiments.inverse_scaling.settings import SplitSettings
from kaarel_bet.experiments.inverse_scaling.splits import split_items, stratified_order

_ROWS = redefine_rows(400, seed=0)


def items(rows: list[Row]) -> list[Item]:
    return make_items(rows, part="train", prefix="row")


def chosen(by: str, n_test: int, held_out: int = 3) -> SplitSettings:
    return SplitSettings.model_validate(
        {"by": by, "n_test": n_test, "held_out_templates": held_out}
    )


@settings(max_examples=30)
@given(
    by=st.sampled_from(["random", "template", "number"]),
    n_test=st.integers(5, 60),
    seed=st.integers(0, 1000),
    twice=st.lists(st.integers(0, 399), max_size=20),
)
def test_no_prompt_is_on_both_sides(by: str, n_test: int, seed: int, twice: list[int]) -> None:
    again = [_ROWS[i].model_copy(update={"prompt": f" {_ROWS[i].prompt.upper()}"}) for i in twice]
    everything = items([*_ROWS, *again])
    split = split_items(everything, chosen(by, n_test), seed)
    assert not {normal(i.prompt) for i in split.train} & {normal(i.prompt) for i in split.test}
    assert audit(split.train, split.test).prompt == 0
    assert {item.part for item in split.train} == {"train"}
    assert {item.part for item in split.test} == {"test"}
    ids = [item.id for item in (*split.train, *split.test)]
    assert len(set(ids)) == len(ids) <= len(everything)
    assert len(split.test) <= n_test


@settings(max_examples=30)
@given(n_test=st.integers(5, 200), seed=st.integers(0, 1000))
def test_a_random_split_loses_no_row_and_has_every_stratum_in_proportion(
    n_test: int, seed: int
) -> None:
    everything = items(_ROWS)
    split = split_items(everything, chosen("random", n_test), seed)
    assert len(split.test) == n_test
    assert len(split.train) == len(everything) - n_test
    everywhere = Counter((item.group, item.answer) for item in everything)
    tested = Counter((item.group, item.answer) for item in split.test)
    for stratum, count in everywhere.items():
        assert abs(tested[stratum] - count * n_test / len(everything)) <= 1.5


@settings(max_examples=20)
@given(n_held_out=st.integers(1, 8), seed=st.integers(0, 1000))
def test_templates_held_out_are_tested_alone(n_held_out: int, seed: int) -> None:
    split = split_items(items(_ROWS), chosen("template", 60, n_held_out), seed)
    tested = {item.group for item in split.test}
    assert len(tested) == n_held_out
    assert not tested & {item.group for item in split.train}
    assert split.notes["templates held out"] == sorted(tested)
    assert audit(split.train, split.test).wording == 0


@settings(max_examples=20)
@given(n_test=st.integers(5, 80), seed=st.integers(0, 1000))
def test_no_number_but_the_wordings_own_is_on_both_sides(n_test: int, seed: int) -> None:
    split = split_items(items(_ROWS), chosen("number", n_test), seed)
    trained = {number for item in split.train for number in numbers(item.prompt)}
    tested = {number for item in split.test for number in numbers(item.prompt)}
    assert trained & tested <= {"5"}  # "View + as the digit 5"
    left_out = split.notes["rows left out"]
    assert left_out == len(_ROWS) - len(split.train) - len(split.test)


def test_the_same_seed_splits_alike_and_another_does_not() -> None:
    one, same, other = (split_items(items(_ROWS), chosen("random", 50), s).test for s in (0, 0, 1))
    assert one == same != other


def test_all_templates_held_out_leave_none_to_train_on() -> None:
    with pytest.raises(SettingsError, match="9 of 9 templates leave none to train on"):
        split_items(items(_ROWS), chosen("template", 10, 9), 0)


def test_a_split_that_leaves_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(SettingsError, match="leaves no row to train on"):
        split_items(items(_ROWS[:9]), chosen("random", 9), 0)


def test_a_split_that_leaves_one_row_to_test_is_refused() -> None:
    rows = [Row(prompt=f"Say {word}.", classes=("a", "b"), answer=0) for word in ("it", "this")]
    with pytest.raises(SettingsError, match="leaves fewer than two rows to test"):
        split_items(items([*rows, rows[1], rows[1]]), chosen("random", 2), 0)


def test_every_beginning_of_a_stratified_order_is_in_proportion() -> None:
    everything = items(_ROWS)
    order = stratified_order(everything, random.Random(0))
    assert sorted(item.id for item in order) == sorted(item.id for item in everything)
    for n in (18, 36, 90, 180):
        counts = Counter(item.group for item in order[:n])
        assert all(abs(count - n / 9) <= 2 for count in counts.values())


def test_the_audit_counts_what_is_shared_exactly_and_modulo_numbers() -> None:
    def make(*prompts: str) -> list[Item]:
        return items([Row(prompt=p, classes=("a", "b"), answer=0) for p in prompts])

    train = make("Add 1 and 2.", "Say it.")
    found = audit(train, make("add 1  and 2.", "Add 3 and 4.", "From 2 to 1.", "Say what?"))
    assert (found.n_test, found.prompt, found.wording, found.numbers) == (4, 1, 2, 2)
