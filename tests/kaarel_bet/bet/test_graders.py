import pytest
from math_verify.errors import TimeoutException

from backends.errors import SettingsError
from kaarel_bet.bet.graders import Grading
from kaarel_bet.bet.schema import Grader
from tests.kaarel_bet.bet.written import designed, written

_ROW = {"id": "a", "name": "Ann", "n": 1234.5, "pattern": "A.*"}
_TALK = "\n  e: {rows: people, prompt: ask, generate: {max_tokens: 1}, graders: [it]}"


def grades(answer: str, **rule: object) -> dict[str, tuple[float, float]]:
    bet = written(evaluations=_TALK, graders="{it: {exact: x}}").bet
    bet = bet.model_copy(update={"graders": {"it": Grader.model_validate(rule)}})
    return Grading(bet, "e", 0).grades(answer, _ROW)


def graded(answer: str, **rule: object) -> float:
    low, high = grades(answer, **rule)["it"]
    assert low == high
    return low


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


@pytest.mark.parametrize(
    ("grader", "message"),
    [
        ('g: {regex: "("}', r"graders\.g\.regex: missing \)"),
        ('mean: {exact: "x"}', r"graders\.mean: expressions call something else 'mean'"),
        ('g: {exact: "{"}', r"graders\.g\.exact: a '{' that belongs to no"),
        ('g: {judge: x, options: [Y, N], prompt: "{answer}"}', r"graders\.g\.judge: no model 'x'"),
        ("g: {language: xx}", r"graders\.g\.language: no language 'xx'"),
        ("g: {json_schema: {type: objekt}}", r"graders\.g\.json_schema: 'objekt' is not valid"),
        ('g: {math: "{"}', r"graders\.g\.math: a '{' that belongs to no"),
        ('h: {exact: x}, g: {all_of: ["hh > 5"]}', r"graders\.g: no grade 'hh'; did you mean 'h'"),
        ('h: {exact: x}, g: {any_of: ["h is 5"]}', r"graders\.g: 'h is 5': a grade compared with"),
        (
            'h: {exact: x}, g: {all_of: ["h > 0"]}, k: {all_of: ["g > 0"]}',
            r"graders\.k: 'g > 0' is of another gate",
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


@pytest.mark.parametrize(
    ("wanted", "answer", "right"),
    [
        ("1/2", "So it is $\\frac{2}{4}$.", True),
        ("\\frac12", "The answer is 0.5", True),
        ("{n}", "\\boxed{1234.5}", True),
        ("2\\sqrt{2}", "$\\sqrt{8}$", True),
        ("3", "I have no idea", False),
        ("3", "", False),
        ("3", "4", False),
    ],
)
def test_mathematics_counts_by_what_it_comes_to(wanted: str, answer: str, right: bool) -> None:
    wanted = wanted if wanted == "{n}" else wanted.replace("{", "{{").replace("}", "}}")
    assert grades(answer, math=wanted) == {"it": (right, right), "it.unjudged": (0, 0)}


def test_what_is_no_mathematics_is_no_right_answer() -> None:
    with pytest.raises(SettingsError, match=r"graders\.it\.math: '\?' is no mathematics"):
        grades("3", math="?")


def test_a_rule_that_fails_is_counted_and_its_grade_left_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object, **__: object) -> bool:
        raise TimeoutError

    monkeypatch.setattr("math_verify.verify", fails)
    assert grades("3", math="3") == {"it": (0, 1), "it.unjudged": (1, 1)}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ('Sure: {"a": 1}', True),
        ('{"a": "1"}', False),
        ("[1]", False),
        ("no JSON", False),
        ('{"a": 1', False),
    ],
)
def test_json_that_a_schema_allows(answer: str, right: bool) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert graded(answer, json_schema=schema) == right


def test_a_schema_that_refers_elsewhere_is_fetched_from_nowhere() -> None:
    found = grades("{}", json_schema={"$ref": "https://example.org/schema.json"})
    assert found == {"it": (0, 1), "it.unjudged": (1, 1)}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Das Wetter ist heute schön, und wir gehen spazieren.", True),
        ("The weather is fine today, and we go for a walk.", False),
        ("42", False),
        ("", False),
    ],
)
def test_the_language_of_an_answer(answer: str, right: bool) -> None:
    assert graded(answer, language="de") == right


@pytest.mark.parametrize(
    ("gate", "answer", "holds"),
    [
        ({"all_of": ("long >= 1", "loud > 0.5")}, "ANN", (1, 1)),
        ({"all_of": ("long >= 1", "loud > 0.5")}, "Annnn", (0, 0)),
        ({"any_of": ("long >= 1", "loud > 0.5")}, "Annnn", (1, 1)),
        ({"any_of": ("long < 1", "loud > 0.5")}, "ann", (0, 0)),
    ],
)
def test_gates_combine_other_grades(
    gate: dict[str, tuple[str, ...]], answer: str, holds: tuple[int, int]
) -> None:
    rules = {"loud": {"share_of_letters": "upper"}, "long": {"regex": "..."}, "it": gate}
    bet = written(evaluations=_TALK, graders="{it: {exact: x}}").bet
    of = {name: Grader.model_validate(rule) for name, rule in rules.items()}
    found = Grading(bet.model_copy(update={"graders": of}), "e", 0).grades(answer, _ROW)
    assert found == {"it": holds}  # what a gate is of is not asked for


def test_mathematics_without_end_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def never_ends(*_: object, **__: object) -> bool:
        raise TimeoutException  # which is no Exception

    monkeypatch.setattr("math_verify.parse", lambda *_, **__: [7] if "7" in _[0] else never_ends())
    assert grades("$9^{9^{8}}$", math="7") == {"it": (0, 1), "it.unjudged": (1, 1)}
