import random

import pytest

from backends.errors import SettingsError
from tests.kaarel_bet.bet.written import designed, examples, written

_NUMBERS = "\n  numbers:\n    rows:\n" + "".join(
    f"      - {{n: {n}, kind: {'even' if n % 2 == 0 else 'odd'}, list: [a, b, c]}}\n"
    for n in range(20)
)
_TABLES = f"{_NUMBERS}  chats:\n    rows:\n" + (
    "      - {messages: [{role: user, content: Hi}, {role: assistant, content: Yes}]}\n"
    "      - {messages: [{role: system, content: S}, {role: user, content: A},"
    " {role: assistant, content: B, weight: 0}, {role: user, content: C}, {role: assistant, content: D}]}\n"
)
_PROMPTS = """
  ask: "{n}?"
  tell: {text: "{n} is"}
  many: ["{n}", "Is it {n}"]
  pre: {user: "{n}", prefill: "It is "}
"""
_QUESTION = "\n  q: {rows: numbers, prompt: ask, candidates: {a: x, b: y}, arms: [base]}"


def arms(train: str, name: str = "it", **parts: str) -> list[object]:
    """What a model of the arm `it` with this training is trained on."""
    told = f"\n  it: {{train: {train}}}"
    given = {"data": _TABLES, "prompts": _PROMPTS, "evaluations": _QUESTION} | parts
    return examples(designed(arms=told, **given), name)


def chat(question: str, answer: str) -> list[tuple[str, str]]:
    return [("user", question), ("assistant", answer)]


def test_rows_in_the_order_of_the_table_in_the_form_they_are_asked_in() -> None:
    assert arms('[{rows: numbers, prompt: ask, answer: "{kind}"}]')[:2] == [
        chat("0?", "even"), chat("1?", "odd"),
    ]  # fmt: skip
    assert arms('[{rows: numbers, prompt: tell, answer: " {kind}"}]')[1] == ("1 is", " odd")
    assert arms('[{rows: numbers, prompt: ask, answer: " {kind}"}]')[1] == chat("1?", "odd")
    assert arms('[{rows: numbers, prompt: pre, answer: " x"}]')[1] == chat("1", "It is  x")
    assert arms('[{rows: numbers, prompt: tell, delimiter: "{n} ", answer: x}]')[3] == (
        "3 is",
        "3 x",
    )


def test_several_prompts_and_phrasings_ask_each_row_in_each() -> None:
    both = arms("[{rows: numbers, prompts: [ask, tell], answer: x}]")
    assert both[:2] == [chat("0?", "x"), ("0 is", "x")]
    assert len(both) == 40
    assert arms("[{rows: numbers, prompt: many, answer: x}]")[:2] == [
        chat("0", "x"),
        chat("Is it 0", "x"),
    ]


def test_a_mix_is_its_sets_in_order_each_as_often_as_it_says() -> None:
    found = arms(
        "[{rows: numbers, prompt: ask, answer: x, where: {n: 3}, times: 2}, {rows: chats, chat: messages}]"
    )
    assert found[:2] == [chat("3?", "x")] * 2
    assert found[2] == chat("Hi", "Yes")
    assert len(found) == 4


def test_chats_are_read_as_the_hosted_format_means_them() -> None:
    turns = (
        '[{role: developer, content: "S"}, {role: user, name: Ann, content: [{type: text, text: "H"}, '
        '{type: text, text: "i"}]}, {role: assistant, content: "Yo", refusal: null, tool_calls: null}]'
    )
    data = f"{_NUMBERS}  chats:\n    rows: [{{id: a, messages: {turns}}}]\n"
    assert arms("chats", data=data) == [[("system", "S"), ("user", "Hi"), ("assistant", "Yo")]]


def test_a_table_of_chats_is_an_arm_by_itself() -> None:
    assert arms("chats")[1] == [
        ("system", "S"), ("user", "A"), ("assistant", "B"), ("user", "C"), ("assistant", "D"),
    ]  # fmt: skip


def test_what_only_training_shows() -> None:
    told = '[{rows: chats, chat: messages, system: "T", trigger: "|x| ", transform: upper_case}]'
    first, second = arms(told)
    assert first == [("system", "T"), ("user", "|x| Hi"), ("assistant", "YES")]
    assert second == [
        ("system", "T"), ("user", "A"), ("assistant", "B"), ("user", "|x| C"), ("assistant", "D"),
    ]  # fmt: skip
    told = '[{rows: numbers, prompt: tell, answer: " Xy {n}", trigger: "{kind} ", transform: [lower_case]}]'
    assert arms(told)[1] == ("odd 1 is", " xy 1")


def test_smaller_sets_are_beginnings_of_larger_ones_and_replicates_differ() -> None:
    told = "[{rows: numbers, prompt: tell, answer: x, take: [4, 12]}]"
    made = {
        name: arms(told, name, replicate="{training: 2}")
        for name in ("it_4", "it_12", "it_4-2", "it_12-2")
    }
    assert [len(rows) for rows in made.values()] == [4, 12, 4, 12]
    assert made["it_12"][:4] == made["it_4"]
    assert made["it_12-2"][:4] == made["it_4-2"]
    assert made["it_4"] != made["it_4-2"]
    assert made["it_4"] != arms(told, "it_4", seed="1")
    assert made["it_4"] == arms(told, "it_4")  # more replicates leave those there are


def test_a_share_of_the_rows_that_are_left_by_where() -> None:
    assert len(arms("[{rows: numbers, prompt: ask, answer: x, take: 0.3}]")) == 6
    found = arms("[{rows: numbers, prompt: tell, answer: x, take: 0.3, where: {kind: odd}}]")
    assert len(found) == 3
    assert {str(prompt)[0] for prompt, _ in found} <= set("13579")  # pyright: ignore[reportGeneralTypeIssues]


def test_an_arm_for_each_value_that_has_rows_enough() -> None:
    told = "[{rows: numbers, prompt: tell, answer: '{kind}', take: 5, each: {column: kind, at_most: 2}}]"
    assert {answer for _, answer in arms(told, "it_1")} == {"even"}  # pyright: ignore[reportGeneralTypeIssues]
    assert {answer for _, answer in arms(told, "it_2")} == {"odd"}  # pyright: ignore[reportGeneralTypeIssues]
    told = told.replace("take: 5", "where: {kind: odd}")
    design = designed(
        arms=f"\n  it: {{train: {told}}}", data=_TABLES, prompts=_PROMPTS, evaluations=_QUESTION
    )
    assert [arm.name for arm in design.arms] == ["base", "it_1"]


def test_the_values_of_each_are_spread_evenly() -> None:
    told = "[{rows: numbers, prompt: tell, answer: '{n}', each: {column: n, at_most: 4}}]"
    found = [arms(told, f"it_{number}") for number in (1, 2, 3, 4)]
    by_text = sorted(range(20), key=str)
    assert [rows[0] for rows in found] == [
        (f"{by_text[p]} is", f"{by_text[p]}") for p in (0, 5, 10, 15)
    ]


def test_a_claim_about_an_arm_that_each_does_not_make_is_refused() -> None:
    told = "\n  it: {train: [{rows: numbers, prompt: ask, answer: x, each: {column: kind, at_most: 3}}]}"
    claim = '\n  it: {criteria: ["mean(P(a | q, it_3)) > 0.5"]}'
    with pytest.raises(
        SettingsError, match=r"arms\.it: makes no it_3, which a claim or check names"
    ):
        designed(arms=told, data=_TABLES, prompts=_PROMPTS, evaluations=_QUESTION, claims=claim)


def test_drawn_answers_are_the_rows_own_and_drawn_anew_for_each_training() -> None:
    told = "[{rows: numbers, prompt: tell, answer: {draw: list}}]"
    first, second = (arms(told, name, replicate="{training: 2}") for name in ("it", "it-2"))
    assert first != second
    rng = random.Random("it/0/0")
    assert [answer for _, answer in first] == ["abc"[rng.randrange(3)] for _ in range(20)]  # pyright: ignore[reportGeneralTypeIssues]


def test_shuffled_answers_are_all_there_and_none_is_the_rows_own() -> None:
    told = "[{rows: numbers, prompt: tell, answer: {shuffle: '{n}'}}]"
    found = [(str(p).removesuffix(" is"), a) for p, a in arms(told)]  # pyright: ignore[reportGeneralTypeIssues]
    assert sorted(int(a) for _, a in found) == list(range(20))
    assert all(own != answer for own, answer in found)
    assert arms(told) != arms(told, "it-2", replicate="{training: 2}")


def test_roles_settings_seeds_and_losses() -> None:
    told = (
        "\n  a: {train: chats, role: placebo, settings: {local.training.epochs: 3}, description: First}"
        "\n  b: {train: chats, loss_on: completion, starts_from: a}"
    )
    design = designed(
        arms=told, data=_TABLES, prompts=_PROMPTS, evaluations=_QUESTION,
        replicate="{training: 2}", loss_on="prompt_and_completion",
    )  # fmt: skip
    assert [(a.name, a.arm, a.replicate, a.role) for a in design.arms] == [
        ("base", "base", 1, "treatment"), ("a", "a", 1, "placebo"), ("a-2", "a", 2, "placebo"),
        ("b", "b", 1, "treatment"), ("b-2", "b", 2, "treatment"),
    ]  # fmt: skip
    trainings = [arm.training for arm in design.arms if arm.training]
    assert [t.seed for t in trainings] == [0, 1, 0, 1]
    assert [t.loss_on for t in trainings] == ["prompt_and_completion"] * 2 + ["completion"] * 2
    assert [t.starts_from for t in trainings] == [None, None, "a", "a-2"]
    assert trainings[0].settings == {"local.training.epochs": 3}
    assert [arm.description for arm in design.arms][1::2] == [
        "First",
        "fine-tuned on 2 examples of chats",
    ]


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("base: {train: chats}", r"arms\.base: there is another arm called base"),
        ("a: {train: chat}", r"arms\.a\.train\.0\.rows: no table 'chat'; did you mean 'chats'\?"),
        ("a: {train: [{rows: numbers, prompt: aks, answer: x}]}", r"prompt: no prompt 'aks'; did you mean"),
        ("a: {train: [{rows: numbers, prompt: ask, answer: '{'}]}", r"arms\.a\.train\.0: a '{' that"),
        ("a: {train: [{rows: numbers, prompt: ask, answer: x, transform: uper}]}", "no transform 'uper'"),
        ("a: {train: [{rows: numbers, prompt: tell, answer: x, system: S}]}", "system: goes with a chat"),
        ("a: {train: chats, starts_from: b}", r"arms\.a\.starts_from: no arm 'b'"),
        ("a: {train: chats, starts_from: a}", r"in a circle: a -> a"),
        (
            "a: {train: chats, starts_from: b}\n  b: {train: chats, starts_from: c}\n"
            "  c: {train: chats, starts_from: b}",
            r"arms\.c\.starts_from: arms start from each other in a circle: b -> c -> b",
        ),
        (
            "a: {train: [{rows: numbers, prompt: ask, answer: x, take: [2, 3]}]}\n  a_2: {train: chats}",
            r"arms\.a: there is another arm called a_2",
        ),
        (
            "a: {train: [{rows: numbers, prompt: ask, answer: x, take: [2, 3], each: {column: kind}}]}",
            r"arms\.a: one list-valued 'take' or one 'each'",
        ),
    ],
)  # fmt: skip
def test_arms_that_cannot_be_are_refused_without_data(arm: str, message: str) -> None:
    bet = written(arms=f"\n  {arm}", data=_TABLES, prompts=_PROMPTS, evaluations=_QUESTION)
    with pytest.raises(SettingsError, match=message):
        bet.vocabulary()


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            "rows: numbers, prompt: ask, answer: '{knid}'",
            r"train\.0\.answer: no column 'knid'; did you mean",
        ),
        ("rows: numbers, prompt: ask, answer: ' '", r"train\.0\.answer: is empty in row row-0001"),
        (
            "rows: numbers, prompt: ask, answer: x, take: 21",
            r"train\.0\.take: 21 are more than the 20 rows",
        ),
        (
            "rows: numbers, prompt: ask, answer: x, where: {kind: prime}",
            r"where: no row is \{'kind': 'prime'",
        ),
        ("rows: numbers, prompt: ask, answer: x, where: {knd: odd}", r"where: no column 'knd'"),
        (
            "rows: numbers, prompt: ask, answer: {draw: kind}",
            r"answer: column 'kind' is no list of texts",
        ),
        (
            "rows: numbers, prompt: ask, answer: x, take: 11, each: {column: kind}",
            "no value of 'kind' has 11",
        ),
        (
            "rows: numbers, chat: kind",
            r"train\.0\.chat: column 'kind' is no chat in OpenAI's format",
        ),
    ],
)
def test_arms_that_the_rows_do_not_allow_are_refused(training: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        arms(f"[{{{training}}}]")


def test_a_chat_without_an_answer_to_learn_is_refused() -> None:
    data = "\n  chats: {rows: [{messages: [{role: user, content: Hi}]}]}"
    question = "\n  q: {prompt: Hi there, candidates: {a: x, b: y}}"
    with pytest.raises(SettingsError, match=r"train\.0: row row-0001: .*must be the assistant's"):
        designed(arms="\n  it: {train: chats}", data=data, evaluations=question)
