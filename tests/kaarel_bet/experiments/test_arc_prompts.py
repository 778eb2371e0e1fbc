"""What the model reads: the examples and one test input; what it learns: that test's output alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaarel_bet.experiments.arc.grids import ArcTask, Encoding, encode
from kaarel_bet.experiments.arc.prompts import answer, leave_one_out, messages, training_examples
from tests.kaarel_bet.experiments.arc_tasks import task, tasks

encodings: st.SearchStrategy[Encoding] = st.sampled_from(["rows", "shape", "numbered"])


def test_a_prompt_reads_as_documented() -> None:
    system, user = messages(task(n_train=2, n_test=2), 1, "rows")
    assert system.role == "system"
    assert "ARC" in system.content
    assert user.role == "user"
    assert user.content == (
        "Example 1\n\nInput:\n```grid\n109\n```\n\nOutput:\n```grid\n1\n0\n```\n\n"
        "Example 2\n\nInput:\n```grid\n119\n```\n\nOutput:\n```grid\n1\n1\n```\n\n"
        "Test\n\nInput:\n```grid\n219\n```"
    )
    assert answer(task(n_train=2, n_test=2), 1, "rows") == "```grid\n2\n1\n```"


@given(made=tasks(), encoding=encodings)
def test_every_test_input_is_an_example_to_learn_from(made: ArcTask, encoding: Encoding) -> None:
    learned = training_examples(made, encoding)
    assert len(learned) == len(made.test)
    for index, (example, pair) in enumerate(zip(learned, made.test, strict=True)):
        assert example.messages is not None
        assert example.messages[:-1] == messages(made, index, encoding)
        assert example.messages[-1].role == "assistant"
        assert example.messages[-1].content == encode(pair.output, encoding)
        assert [m.role for m in example.messages].count("assistant") == 1


def test_a_prompt_holds_neither_its_answer_nor_the_other_tests() -> None:
    made = task(n_train=2, n_test=3)
    for index, pair in enumerate(made.test):
        text = "".join(message.content for message in messages(made, index, "rows"))
        assert encode(pair.input, "rows") in text
        for number, other in enumerate(made.test):
            assert encode(other.output, "rows") not in text
            assert number == index or encode(other.input, "rows") not in text


@given(made=tasks().filter(lambda made: len(made.train) > 1))
def test_each_train_pair_is_left_out_once_and_the_real_tests_always(made: ArcTask) -> None:
    left = leave_one_out(made)
    assert [variant.test for variant in left] == [(pair,) for pair in made.train]
    for place, variant in enumerate(left):
        assert variant.train == made.train[:place] + made.train[place + 1 :]
        assert variant.id == f"task/leave-{place}"


@pytest.mark.parametrize(("n_train", "n_left"), [(1, 0), (2, 2), (4, 4)])
def test_a_task_with_one_train_pair_has_none_to_leave_out(n_train: int, n_left: int) -> None:
    assert len(leave_one_out(task(n_train=n_train))) == n_left
