"""Bets as files: what is read, laid over and refused, and where each mistake is said to be."""

import contextlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import SettingsError
from kaarel_bet.bet.claims import check_claims
from kaarel_bet.bet.expressions import ExpressionError
from kaarel_bet.bet.schema import Bet
from kaarel_bet.bet.schema_file import SCHEMA, as_text
from kaarel_bet.bet.source import BETS, TASKS, Assignment, find_bet, load_bet, shipped
from kaarel_bet.documents import Document
from kaarel_bet.experiments import open_experiment
from kaarel_bet.yaml_files import parse

TEXT = """\
bet: 1
name: mine
question: Does it?
parameters: {least: 0.5}
choices:
  family:
    asked: {}
    told: {prompts.ask: "Say {word}", parameters.least: 0.25}
data:
  words: {rows: [{word: a}, {word: b}]}
  more: {file: more.csv}
prompts:
  ask: "{word}?"
arms:
  tuned:
    train: [{rows: words, prompt: ask, answer: "{word}"}]
evaluations:
  asked:
    rows: words
    prompt: ask
    candidates: {right: "{word}"}
claims:
  learns:
    criteria: ["mean(P(right | asked, tuned)) > least"]
checks:
  quiet: {any_of: [mean(P(right | asked, base)) < least, mean(P(right | asked, base)) < 1e-3]}
"""


def write(text: str = TEXT, name: str = "mine.yaml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def loaded(*assignments: str, section: dict[str, Any] | None = None, text: str = TEXT) -> Bet:
    config = Document("config.yaml", {"mine": section} if section else {})
    bet = load_bet(write(text), config, [Assignment.parse(one) for one in assignments]).bet
    assert isinstance(bet, Bet)
    return bet


def refusal(text: str = TEXT, *assignments: str, section: dict[str, Any] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        loaded(*assignments, section=section, text=text)
    message = str(caught.value)
    assert "\n" not in message
    return message


def changed(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new)


# --- which file ------------------------------------------------------------------------------


def test_every_shipped_bet_and_every_task_loads_under_its_name() -> None:
    for name in shipped():
        assert load_bet(name).bet.name == name


def test_a_task_is_the_inverse_scaling_bet_about_it() -> None:
    assert {find_bet(task) for task in TASKS} == {BETS / "inverse_scaling.yaml"}
    bet = load_bet("memo_trap").bet
    assert isinstance(bet, Bet)
    assert bet.data["items"].parameters["task"] == "memo_trap"


def test_an_unknown_bet_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match=r"no bet 'memotrap'; did you mean 'memo_trap'\?"):
        find_bet("memotrap")


def test_a_bets_name_is_none_of_config_yamls_keys() -> None:
    write(changed("name: mine", "name: local"))
    with pytest.raises(SettingsError, match=r"line 2, .*: name: 'local' is a key of config\.yaml"):
        load_bet("mine.yaml", reserved=("local",))


# --- what is laid over it --------------------------------------------------------------------


def test_of_a_choice_the_first_option_is_the_default_and_flags_come_last() -> None:
    assert loaded().prompts["ask"] == "{word}?"
    assert loaded("mine.family=told").prompts["ask"] == "Say {word}"
    assert loaded(section={"family": "told"}).parameters["least"] == 0.25
    assert loaded("mine.family=asked", section={"family": "told"}).parameters["least"] == 0.5
    assert loaded("mine.family=told", "mine.parameters.least=1").parameters["least"] == 1
    assert "mine.family: no option 'tol'; did you mean 'told'?" in refusal(TEXT, "mine.family=tol")


def test_a_section_is_merged_key_by_key_and_null_takes_a_key_away() -> None:
    bet = loaded(section={"parameters": {"most": 2}, "checks": {"quiet": None}})
    assert bet.parameters == {"least": 0.5, "most": 2}
    assert bet.checks == {}


def test_flags_come_after_the_section_and_reach_into_lists() -> None:
    bet = loaded(
        "mine.parameters.most=3", "mine.checks.quiet=null", section={"parameters": {"most": 2}}
    )
    assert bet.parameters["most"] == 3
    assert not bet.checks
    (part,) = loaded("mine.arms.tuned.train.0.times=4").arms["tuned"].train
    assert not isinstance(part, str)
    assert part.times == 4
    assert "'7' is no place in a list of 1" in refusal(TEXT, "mine.arms.tuned.train.7.times=4")


def test_a_files_content_is_part_of_what_is_frozen() -> None:
    assert load_bet(write()).files == {"more.csv": None}
    Path("more.csv").write_text("word\nc\n", encoding="utf-8")
    first = load_bet(write()).frozen()
    assert len(first["files"]["more.csv"]) == 64
    Path("more.csv").write_text("word\nd\n", encoding="utf-8")
    assert load_bet(write()).frozen()["files"] != first["files"]


def test_a_bet_is_the_same_wherever_its_file_lies() -> None:
    Path("folder").mkdir()
    assert load_bet(write()).frozen() == load_bet(write(name="folder/other.yaml")).frozen()


# --- where a mistake is ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bet: 1", "bet: 2", "mine.yaml, line 1, column 1: bet: should be 1 (got 2)"),
        ("question: Does it?\n", "", "mine.yaml: question: is missing"),
        ("prompts:", "prompt:", "line 12, column 1: unknown key 'prompt'; did you mean 'prompts'?"),
        (
            "answer: ",
            "anser: ",
            "line 16, column 40: unknown key 'arms.tuned.train.0.anser'; did you mean "
            "'arms.tuned.train.0.answer'?",
        ),
        (
            'answer: "{word}"',
            "answer: {drw: word}",
            "unknown key 'arms.tuned.train.0.answer.drw'; did you mean 'arms.tuned.train.0.answer.draw'?",
        ),
        (
            "any_of: [mean",
            "any_off: [mean",
            "line 26, column 11: unknown key 'checks.quiet.any_off'",
        ),
        (
            "train: [{rows",
            "role: boss\n    train: [{rows",
            "arms.tuned.role: should be 'treatment'",
        ),
        (
            "prompt: ask, answer",
            "answer",
            "line 16, column 13: arms.tuned.train.0: give one of 'prompt'",
        ),
        (
            "rows: words, prompt: ask",
            "rows: 5, prompt: ask",
            "arms.tuned.train.0.rows: should be a valid",
        ),
        ("least: 0.5", "1st: 0.5", "line 4, column 14: parameters.1st: '1st' is no name"),
        ("least: 0.5", "größe: 0.5", "parameters.größe: 'größe' is no name"),
        ("least: 0.5", "class: 0.5", "parameters.class: 'class' is no name"),
        ("least: 0.5", "least: x", "parameters.least: should be a valid number (got 'x')"),
        ("file: more.csv", "file: more.csv, n: 3", "data.more: unknown key 'n'"),
        ("file: more.csv", "rows: []", "data.more.rows: "),
        ("told: {", "told: {a.b: 1, ", "unknown key 'a'"),
    ],
)
def test_a_mistake_is_named_with_its_line_column_and_key(old: str, new: str, message: str) -> None:
    flags = ("mine.family=told",) if old.startswith("told") else ()
    said = refusal(changed(old, new), *flags)
    assert said.startswith("mine.yaml")
    assert message in said


def test_a_mistake_that_was_laid_over_is_blamed_on_what_laid_it() -> None:
    assert refusal(TEXT, "mine.parameters.least=x").startswith("command line: parameters.least: ")
    assert refusal(TEXT, "mine.arm.x=1").startswith("command line: unknown key 'arm'; did you mean")
    config = parse("seed: 1\nmine:\n  parameters: {least: x}\n", "config.yaml")
    with pytest.raises(
        SettingsError, match=r"config\.yaml, line 3, column 16: parameters\.least: "
    ):
        load_bet(write(), config)


def test_what_is_found_wrong_later_gets_its_place_as_well() -> None:
    bet = load_bet(write())
    said = r"^mine\.yaml, line 24, column 22: claims\.learns\.criteria\.0: no$"
    with pytest.raises(SettingsError, match=said), bet.pointing():
        raise ExpressionError("no", ("claims", "learns", "criteria", 0), 5)
    said = r"^mine\.yaml, line 16, column 13: arms\.tuned\.train\.0: no table 'x'$"
    with pytest.raises(SettingsError, match=said), bet.pointing():
        raise SettingsError("arms.tuned.train.0: no table 'x'")
    with pytest.raises(SettingsError, match=r"^nothing of the kind: no$"), bet.pointing():
        raise SettingsError("nothing of the kind: no")


# --- YAML's traps ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", 'line 2, column 1: the key "a" stands here again, after line 1'),
        ("a: {b: 1, b: 2}\n", 'line 1, column 11: the key "b"'),
        ("a: 1\n\tb: 2\n", "line 2, column 1: a tab where YAML wants spaces"),
        ("1: a\n", "line 1, column 1: the key '1' is no text; put it into quotes"),
        ("null: a\n", "the key 'null' is no text"),
        ("a:\n  true: b\n", "line 2, column 3: the key 'true' is no text"),
        ("? [a]\n: b\n", "the key of several values is no text"),
        ("a: &a [*a]\n", "a value contains itself"),
        ("a: &a {b: *a}\n", "a value contains itself"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n", "line 3, column 3: merge keys (<<) are not taken"),
        ("a: .inf\n", "line 1, column 4: .inf is no float that is taken here"),
        ("a: [.nan]\n", "line 1, column 5: .nan is no float"),
        ("a: " + "9" * 5000 + "\n", "is no int that is taken here"),
        ("a: 0x" + "f" * 5000 + "\n", "is no int that is taken here"),
        ("a: 1e999\n", "1e999 is no float"),
        ("a: !thing 1\n", "is no !thing"),
        ("a: !!set {b}\n", "the tag tag:yaml.org,2002:set is not known here"),
        ('a: "\\ud800"\n', "half of a surrogate pair is no text"),
        ('a: "\\Uffffffff"\n', "can't be read as YAML"),
        ("a: [1\nb: 2\n", "mine.yaml, line 2, column "),
        ("a: 1\n---\nb: 2\n", "mine.yaml, line 2, column 1"),
        ("a: 1\nb: \0\n", "mine.yaml, line 2: the character U+0000 is not taken"),
        ("- a\n", "mine.yaml: must be a mapping of keys to values"),
        ("[" * 1000, "mine.yaml: nested too deeply"),
        ("a: " + "[" * 60 + "]" * 60, "nested too deeply"),
    ],
)
def test_yamls_own_traps_are_one_line_each(text: str, message: str) -> None:
    said = refusal(text)
    assert said.startswith("mine.yaml")
    assert message in said


def test_aliases_do_not_multiply_without_end() -> None:
    layers = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghi"))
    assert "too many values" in refusal("a: &a [x, x]\n" + layers)


def test_text_that_yaml_1_1_would_have_changed_stays_text() -> None:
    document = parse("no: off\nyes: 2020-01-01\non: 12:30:45\n", "a.yaml")
    assert document.data == {"no": "off", "yes": "2020-01-01", "on": "12:30:45"}


def test_a_byte_order_mark_is_no_part_of_a_file() -> None:
    Path("mine.yaml").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert load_bet("mine.yaml").bet.name == "mine"


def test_another_encoding_is_refused() -> None:
    Path("mine.yaml").write_bytes(TEXT.encode("utf-16"))
    with pytest.raises(SettingsError, match=r"^mine\.yaml: not UTF-8 text \(byte 0\)$"):
        load_bet("mine.yaml")


_FILES = [path.read_text(encoding="utf-8") for path in sorted(BETS.rglob("*.yaml"))] + [TEXT]
_CHUNKS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        [*"\t\n{}[]:,-?&*!|>'\"%@`#\\ ~", "<<: ", "null", "1: ", "- ", "1e999", "...", "---"]
    ),
)


@given(
    st.sampled_from(_FILES),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), _CHUNKS), max_size=3),
)
def test_no_change_of_a_bet_ends_in_anything_but_a_bet_or_one_line(
    text: str, changes: list[tuple[float, int, str]]
) -> None:
    for where, length, chunk in changes:
        start = round(where * len(text))
        text = text[:start] + chunk + text[start + length :]
    _loads_or_is_refused_in_one_line(text)


@given(
    st.text(st.sampled_from("ab1:-?&*!|>'\"{}[],#% \n\t~\\.<=@`0x\0\ufeff\x85\u2028é"), max_size=60)
)
def test_no_text_ends_in_anything_but_one_line(text: str) -> None:
    _loads_or_is_refused_in_one_line(text)


def _loads_or_is_refused_in_one_line(text: str) -> None:
    with contextlib.suppress(SettingsError):
        loaded = load_bet(write(text.encode(errors="replace").decode()))
        check_claims(loaded.bet, open_experiment(loaded.bet, loaded.folder, 0).vocabulary())


# --- the schema ------------------------------------------------------------------------------


def test_the_schema_for_editors_is_that_of_the_types() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == as_text(), "python -m kaarel_bet.bet.schema_file"
