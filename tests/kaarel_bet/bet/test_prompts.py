from typing import Any

import pytest

from backends.errors import SettingsError
from kaarel_bet.bet.prompts import Prompts, check_text, fill
from tests.kaarel_bet.bet.written import written

_ROW = {
    "id": "a",
    "name": "Ann",
    "full name": "Ann B.",
    "n": 3,
    "x": 0.5,
    "flag": True,
    "none": None,
}
_CHAT = [
    {"role": "user", "content": "Hi {name}"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "Bye!"},
]


def context(prompt: str, row: dict[str, Any] | None = None, system: str | None = None) -> Any:
    (form,) = Prompts(written(prompts=f"\n  it: {prompt}\n  ask: x").bet).of("it", "here")
    found = form.context(_ROW if row is None else row, system)
    return found if isinstance(found, str) else [(turn.role, turn.content) for turn in found]


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{name} and {n}, {x}", "Ann and 3, 0.5"),
        ("{{name}} {{{name}}} }}{{", "{name} {Ann} }{"),
        ("{full name}{full name}", "Ann B.Ann B."),
        (r"a\n\1 %s $x", r"a\n\1 %s $x"),
        ("", ""),
    ],
)
def test_text_is_verbatim_but_for_columns_and_doubled_braces(text: str, filled: str) -> None:
    assert fill(text, _ROW, "here") == filled


def test_a_value_that_looks_like_a_column_stays_as_it_is() -> None:
    assert fill("{name}", {"id": "a", "name": "{id} }}"}, "here") == "{id} }}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{nmae}", "prompts.it: no column 'nmae'; did you mean 'name'?"),
        ("{flag}", "prompts.it: column 'flag' is a bool in row a; texts and numbers"),
        ("{none}", "prompts.it: column 'none' is empty in row a"),
        ("a {", "prompts.it: a '{' that belongs to no {column}; write '{{' for the brace itself"),
        ("} {name}", "prompts.it: a '}' that belongs to no {column}; write '}}'"),
        ("{}", "prompts.it: a '{' that belongs to no {column}"),
        ("{name!r}", "prompts.it: no column 'name!r'"),
    ],
)
def test_what_is_no_column_of_texts_is_refused(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        fill(text, _ROW, "prompts.it")
    assert str(caught.value).startswith(message)


def test_braces_are_checked_without_rows() -> None:
    check_text("{anything} {{}}", "here")
    with pytest.raises(SettingsError, match="belongs to no"):
        Prompts(written(prompts='\n  ask: "{name"').bet)
    with pytest.raises(SettingsError, match=r"prompts\.ask\.1: a '}'"):
        Prompts(written(prompts='\n  ask: ["{name}", "name}"]').bet)


def test_the_forms_of_a_prompt() -> None:
    assert context('"Hi {name}"') == [("user", "Hi Ann")]
    assert context('{system: "S {n}", user: "Hi"}') == [("system", "S 3"), ("user", "Hi")]
    assert context('{text: "{name} is"}') == "Ann is"
    messages = (
        "[{role: user, content: A}, {role: assistant, content: '{name}'}, {role: user, content: B}]"
    )
    assert context(f"{{messages: {messages}}}") == [
        ("user", "A"),
        ("assistant", "Ann"),
        ("user", "B"),
    ]


def test_a_system_prompt_takes_the_place_of_a_chats_own() -> None:
    assert context('"Hi"', system="New") == [("system", "New"), ("user", "Hi")]
    assert context("{system: Old, user: Hi}", system="New") == [("system", "New"), ("user", "Hi")]


def test_a_rows_own_chat_is_asked_up_to_its_last_answer() -> None:
    row = {"id": "a", "chat": _CHAT}
    first_three = [("user", "Hi {name}"), ("assistant", "Yes?"), ("user", "Bye")]
    assert context("{chat: chat}", row) == first_three
    assert context("{chat: chat}", {"id": "a", "chat": _CHAT[:3]}) == [("user", "Hi {name}")]
    assert context("{chat: chat}", {"id": "a", "chat": _CHAT[:1]}) == [("user", "Hi {name}")]


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        (_CHAT[1:2], "no user's turn is before the last answer of the chat in row a"),
        ("Hi", "column 'chat' is no chat in OpenAI's format in row a"),
        ([], "column 'chat' is no chat in OpenAI's format in row a"),
        ([{"role": "robot", "content": "Hi"}], "in row a: 0.role"),
    ],
)
def test_a_column_that_holds_no_chat_is_refused(chat: object, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        context("{chat: chat}", {"id": "a", "chat": chat})
    assert message in str(caught.value)
    assert str(caught.value).startswith("prompts.it: ")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            "{messages: [{role: user, content: A}, {role: assistant, content: B}]}",
            "must end with a user's",
        ),
        ("{text: A, prefill: B}", r"prompts\.it\.prefill: goes with a chat"),
    ],
)
def test_prompts_that_cannot_be_asked_are_refused(prompt: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        context(prompt)


def test_an_answer_in_a_chat_leaves_the_space_before_it_to_the_template() -> None:
    found = Prompts(
        written(prompts='\n  ask: "x"\n  t: {text: "x"}\n  p: {user: x, prefill: "It is {n}"}').bet
    )
    chat, text, prefilled = (found.of(name, "here")[0] for name in ("ask", "t", "p"))
    assert [form.answer(" yes") for form in (chat, text, prefilled)] == ["yes", " yes", " yes"]
    assert [form.prefilled(_ROW) for form in (chat, text, prefilled)] == [None, None, "It is 3"]


def test_what_is_no_name_is_a_users_turn_and_a_name_must_exist() -> None:
    found = Prompts(written().bet)
    (inline,) = found.of("Is {name} here?", "evaluations.where.prompt")
    assert [turn.content for turn in inline.context(_ROW)] == ["Is Ann here?"]  # pyright: ignore[reportAttributeAccessIssue]
    assert len(found.of("many", "here")) == 2
    with pytest.raises(SettingsError, match=r"here: no prompt 'aks'; did you mean 'ask'\?"):
        found.of("aks", "here")
