import pytest

from backends.errors import SettingsError
from kaarel_bet.bet.graders import grade
from kaarel_bet.bet.schema import Grader
from tests.kaarel_bet.bet.written import designed, tokenize, written

_ROW = {"id": "a", "name": "Ann", "n": 1234.5, "pattern": "A.*"}


def graded(answer: str, **rule: object) -> float:
    return grade(Grader.model_validate(rule), answer, _ROW, "graders.it")


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        ({"exact": "{name}"}, [" Ann\n", "Ann"], ["ann", "Ann.", ""]),
        ({"exact": "{name}", "ignore_case": True}, ["ANN ", "ann"], ["An"]),
        ({"contains": "{name}"}, ["It is Ann!", "Anna"], ["ann", "", "A nn"]),
        ({"contains": "{name}", "ignore_case": True}, ["hANNa"], ["Hana"]),
        ({"starts_with": "{name}"}, ["\n Ann, I think", "Anna"], ["Not Ann", ""]),
        ({"regex": r"\bA\w+n$"}, ["It is Ann"], ["ann", "Ann."]),
        ({"regex": r"^ann", "ignore_case": True}, ["Anna"], [" Ann"]),
        (
            {"json_field": "who.1", "equals": "{name}"},
            ['{"who": ["Bob", "Ann"]}'],
            ['{"who": ["Ann"]}'],
        ),
        (
            {"json_field": "ok", "equals": "true"},
            ['So: ```json\n{"ok": true}\n```'],
            ['{"ok": false}', "ok"],
        ),
        (
            {"json_field": "a.b", "equals": "YES", "ignore_case": True},
            ['{"a": {"b": "yes"}}'],
            ['{"a": 1}'],
        ),
    ],
)
def test_rules_of_texts(rule: dict[str, object], right: list[str], wrong: list[str]) -> None:
    assert [graded(answer, **rule) for answer in right] == [1.0] * len(right)
    assert [graded(answer, **rule) for answer in wrong] == [0.0] * len(wrong)


@pytest.mark.parametrize(
    ("wanted", "answer", "right"),
    [
        ("{n}", "First 3, then 1,234.5.", True),
        ("1,234.5", "1234.50", True),
        ("5", "10-5", True),
        ("-5", "It is -5.", True),
        ("-5", "It is −5", True),
        (".5", "about .5", True),
        ("2000", "2e3", True),
        ("3", "1, 2, 3", True),
        ("3", "3 of 4", False),
        ("3", "none", False),
        ("123456", "123,456", True),
        ("4567", "123,4567", True),  # no thousands: two numbers
    ],
)
def test_the_last_number_counts(wanted: str, answer: str, right: bool) -> None:
    assert graded(answer, number=wanted) == right


def test_numbers_may_differ_by_the_tolerance() -> None:
    assert [graded(a, number="10", tolerance=0.5) for a in ("10.5", "9.5", "10.51")] == [1, 1, 0]


@pytest.mark.parametrize(
    ("answer", "share"), [("ABcd", 0.5), ("A 1!", 1.0), ("123", 0.0), ("", 0.0), ("ÄÖß", 2 / 3)]
)
def test_the_share_of_letters(answer: str, share: float) -> None:
    assert graded(answer, share_of_letters="upper") == pytest.approx(share)


def test_every_letter_with_a_case_is_upper_or_lower() -> None:
    assert graded("aB", share_of_letters="lower") == 0.5


_JUDGE = 'judge: {judge: j, scale: [0, 10], prompt: "{answer}"}'


@pytest.mark.parametrize(
    ("grader", "message"),
    [
        ('g: {regex: "("}', r"graders\.g\.regex: missing \)"),
        ('mean: {exact: "x"}', r"graders\.mean: expressions call something else 'mean'"),
        ('g: {exact: "{"}', r"graders\.g\.exact: a '{' that belongs to no"),
        ('g: {judge: x, options: [Y, N], prompt: "{answer}"}', r"graders\.g\.judge: no model 'x'"),
        (
            'g: {all_of: ["gg > 5"]}',
            r"graders\.g: no grader compared as in 'coherent > 50': 'gg > 5'",
        ),
    ],
)
def test_graders_that_cannot_be_are_refused(grader: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        written(graders=f"{{{grader}}}").vocabulary()


def test_an_unknown_grader_is_refused() -> None:
    told = "\n  e: {rows: people, prompt: ask, generate: {max_tokens: 1}, graders: [namd]}"
    with pytest.raises(
        SettingsError, match=r"evaluations\.e\.graders: no grader 'namd'; did you mean 'named'"
    ):
        written(evaluations=told, graders='{named: {exact: "{name}"}}').vocabulary()


@pytest.mark.parametrize(
    ("grader", "message"),
    [
        ('{exact: "{nam}"}', r"evaluations\.e\.graders\.g: no column 'nam'; did you mean 'name'"),
        ('{number: "{name}"}', r"evaluations\.e\.graders\.g\.number: 'Ann' is no number"),
    ],
)
def test_what_the_rows_lack_shows_before_anything_is_asked(grader: str, message: str) -> None:
    told = f"\n  e: {{rows: people, prompt: ask, generate: {{max_tokens: 1}}, graders: {{g: {grader}}}}}"
    with pytest.raises(SettingsError, match=message):
        designed(evaluations=told)


def test_judges_are_known_but_cannot_be_run() -> None:
    told = "\n  e: {rows: people, prompt: ask, generate: {max_tokens: 1}, graders: [judge, gate]}"
    bet = written(
        models="{j: {}}", graders=f'{{{_JUDGE}, gate: {{all_of: ["judge > 5"]}}}}', evaluations=told
    )
    assert bet.vocabulary().questions["e"].quantities == {"judge": (0.0, 10.0), "gate": (0.0, 1.0)}
    assert bet.design(tokenize).evaluations
    assert (bet.unbuilt() or "").startswith("graders.judge: judged answers can't be graded")
