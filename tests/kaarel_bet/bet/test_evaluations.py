import random
from collections.abc import Sequence
from typing import Any

import pytest

from backends.data import GenerationQuery, ScoringQuery
from backends.errors import SettingsError
from kaarel_bet.experiments.interface import Evaluation
from tests.kaarel_bet.bet.written import designed, examples, queries, written

_PEOPLE = 'rows: people, candidates: {right: "{city}", wrong: "not {city}"}'
_ROWS = "".join(
    f"      - {{q: 'Q{n}', classes: [' yes{n}', ' no{n}'], right: ' yes{n}', place: 0, by: '|'}}\n"
    for n in range(12)
)
_SPLIT = f"\n  items:\n    rows:\n{_ROWS}    split: {{test: 4, train: rest}}\n"
_ITEMS: dict[str, str] = {
    "data": _SPLIT,
    "prompts": '\n  ask: {text: "{q}"}\n  chat: {system: S, user: "{q}"}',
    "arms": '\n  tuned: {train: [{rows: items.train, prompt: ask, answer: "{right}", take: [2, 5]}]}',
}


def evaluations(told: str, **parts: str) -> dict[str, Evaluation]:
    found = designed(evaluations=f"\n  e: {{{told}}}", **parts).evaluations
    return {one.name: one for one in found}


def contents(query: ScoringQuery | GenerationQuery) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in query.messages or ()]


# --- names, arms, rows -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "names"),
    [
        ("prompt: ask", ["e"]),
        ("prompts: [ask]", ["e"]),
        ("prompts: [ask, other]", ["e.ask", "e.other"]),
        ("prompt: ask, system: S", ["e"]),
        ("prompt: ask, system: {none: null, be: B}", ["e.none", "e.be"]),
        (
            "prompts: [ask, other], system: {a: A, b: B}",
            ["e.ask_a", "e.ask_b", "e.other_a", "e.other_b"],
        ),
    ],
)
def test_a_question_for_each_prompt_and_system_prompt(told: str, names: list[str]) -> None:
    bet = written(evaluations=f"\n  e: {{{_PEOPLE}, {told}}}")
    assert list(bet.vocabulary().questions) == names
    assert list(evaluations(f"{_PEOPLE}, {told}")) == names


def test_system_prompts_of_a_question() -> None:
    found = evaluations(f'{_PEOPLE}, prompt: ask, system: {{none: null, be: "Be {{n}}."}}')
    none, be = (list(found[name].queries) for name in ("e.none", "e.be"))
    assert contents(none[0]) == [("user", "Where is Ann?")]  # pyright: ignore[reportArgumentType]
    assert contents(be[1]) == [("system", "Be 4."), ("user", "Where is Bob?")]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("arms", "models"),
    [
        ("", ["base", "a_1", "a_1-2", "a_2", "a_2-2", "b", "b-2"]),
        (", arms: [base]", ["base"]),
        (", arms: [b, a_2]", ["a_2", "a_2-2", "b", "b-2"]),
        (", arms: [a, base]", ["base", "a_1", "a_1-2", "a_2", "a_2-2"]),
    ],
)
def test_who_is_asked(arms: str, models: list[str]) -> None:
    train = '[{rows: people, prompt: ask, answer: "{city}"'
    told = f"\n  a: {{train: {train}, take: [1, 2]}}]}}\n  b: {{train: {train}}}]}}"
    found = evaluations(f"{_PEOPLE}, prompt: ask{arms}", arms=told, replicate="{training: 2}")
    assert list(found["e"].arms) == models
    assert found["e"].table == "people"
    assert found["e"].replicate is None


def test_the_first_rows_of_those_that_match() -> None:
    found = evaluations(f"{_PEOPLE}, prompt: ask, where: {{n: 3}}, take: 1")
    assert [query.id for query in found["e"].queries] == ["a"]
    found = evaluations(f"{_PEOPLE}, prompt: ask, where: {{n: 3, flag: null}}")
    assert [query.id for query in found["e"].queries] == ["c"]


def test_questions_about_the_same_rows_have_the_same_table_and_others_another() -> None:
    told = (
        f"\n  a: {{{_PEOPLE}, prompts: [ask, other]}}\n  b: {{{_PEOPLE}, prompt: ask, take: 2}}"
        f"\n  c: {{{_PEOPLE}, prompt: ask, where: {{n: 3}}}}\n  d: {{{_PEOPLE}, prompt: many}}"
        "\n  e: {rows: people, prompt: ask, generate: {max_tokens: 1, temperature: 1.0, samples: 2}}"
        "\n  f: {prompt: Is it?, candidates: {y: Yes, n: No}}"
        f"\n  g: {{{_PEOPLE.replace('people', 'trained_on')}, prompt: ask}}"
    )
    tables = {name: q.table for name, q in written(evaluations=told).vocabulary().questions.items()}
    assert tables["a.ask"] == tables["a.other"] == "people"
    assert tables["d"] == tables["e"]  # two numbers a row
    assert len(set(tables.values())) == len(tables) - 2


def test_a_question_without_rows_is_asked_once() -> None:
    (query,) = evaluations('prompt: "Is it?", candidates: {y: "Yes", n: "No"}')["e"].queries
    assert query.model_dump(exclude_none=True) == {
        "id": "e",
        "messages": ({"role": "user", "content": "Is it?"},),
        "candidates": {"y": "Yes", "n": "No"},
    }


def test_phrasings_ask_each_row_in_each() -> None:
    found = [*evaluations(f"{_PEOPLE}, prompt: many")["e"].queries]
    assert [query.id for query in found] == ["a/1", "a/2", "b/1", "b/2", "c/1", "c/2"]
    assert [contents(query)[-1][1] for query in found[:2]] == ["Ann?", "Where, Ann?"]  # pyright: ignore[reportArgumentType]


# --- rows trained on -------------------------------------------------------------------------------


def test_every_trained_arm_is_asked_its_own_rows_and_so_is_the_base() -> None:
    told = "rows: trained_on, take: 3, prompt: ask, options: classes, answer: place"
    parts = _ITEMS | {"evaluations": f"\n  own: {{{told}}}", "replicate": "{training: 2}"}
    design = designed(**parts)
    found = {one.name: one for one in design.evaluations}
    assert list(found) == ["own.tuned_2", "own.tuned_2-2", "own.tuned_5", "own.tuned_5-2"]
    for name, one in found.items():
        model = name.removeprefix("own.")
        assert list(one.arms) == ["base", model]
        assert one.replicate == (2 if name.endswith("-2") else 1)
        assert one.question == name.removesuffix("-2")
        assert one.table == "items.train"
        asked = [query.prompt for query in one.queries]
        assert asked == [prompt for prompt, _ in examples(design, model)][:3]
    questions = written(**parts).vocabulary().questions
    assert questions["own.tuned_5"].arms == {"base", "tuned_5"}


def test_rows_of_a_mix_with_the_same_ids_are_refused() -> None:
    train = "[{rows: items.train, prompt: ask, answer: x}, {rows: more, prompt: ask, answer: x}]"
    parts = _ITEMS | {"data": f"{_SPLIT}  more: {{rows: [{{q: Q}}, {{q: R}}]}}\n"}
    parts |= {"arms": f"\n  tuned: {{train: {train}}}"}
    with pytest.raises(
        SettingsError, match=r"evaluations\.e\.rows: rows of items\.train and more have the"
    ):
        evaluations("rows: trained_on, prompt: ask, candidates: {a: x, b: y}", **parts)


# --- candidates and options ------------------------------------------------------------------------


def test_options_are_labelled_by_their_place_and_follow_the_delimiter() -> None:
    told = 'rows: items.test, options: classes, answer: place, delimiter: "{by}"'
    query = evaluations(f"{told}, prompt: ask", **_ITEMS)["e"].queries[0]
    assert query.prompt is not None
    n = query.prompt.removeprefix("Q")
    assert query.candidates == {"0": f"| yes{n}", "1": f"| no{n}"}  # pyright: ignore[reportAttributeAccessIssue]
    chat = evaluations(told.replace("{by}", " ") + ", prompt: chat", **_ITEMS)["e"].queries[0]
    assert chat.candidates == {"0": f"yes{n}", "1": f"no{n}"}  # pyright: ignore[reportAttributeAccessIssue]


def test_sampled_answers_have_their_own_luck_and_the_likeliest_needs_none() -> None:
    told = "rows: people, prompt: ask, generate: {max_tokens: 5}"
    greedy: Sequence[Any] = evaluations(told)["e"].queries
    assert [(q.max_tokens, q.temperature, q.n_samples, q.seed) for q in greedy] == [
        (5, 0.0, 1, 0)
    ] * 3  # pyright: ignore[reportAttributeAccessIssue]
    told = "rows: people, prompt: ask, generate: {max_tokens: 5, temperature: 0.7, samples: 3}"
    sampled: Sequence[Any] = evaluations(told)["e"].queries
    assert [(q.temperature, q.n_samples) for q in sampled] == [(0.7, 3)] * 3
    assert len({query.seed for query in sampled}) == 3
    again: Sequence[Any] = evaluations(told)["e"].queries
    assert [q.seed for q in again] == [q.seed for q in sampled]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            'candidates: {a: "{city}", b: "{city}"}',
            r"e\.candidates\.b: has the same tokens as a in row a: 'Rome'",
        ),
        (
            'candidates: {a: "Rome", b: "ROME"}',
            r"e\.candidates\.b: has the same tokens as a in row a: 'ROME'",
        ),
        ('candidates: {a: "{city}", b: " "}', r"e\.candidates\.b: is empty in row a"),
        (
            'candidates: {a: "{ciyt}", b: x}',
            r"e\.candidates\.a: no column 'ciyt'; did you mean 'city'\?",
        ),
        ("options: city, answer: place", r"e\.options: column 'city' is no list of texts in row a"),
        (
            "options: list, answer: flag",
            r"e\.answer: column 'flag' of row a is True, not a place from 0 to 1",
        ),
        (
            "options: list, answer: n",
            r"e\.answer: column 'n' of row a is 3, not a place from 0 to 1",
        ),
        ("options: list, answer: palce", r"e\.answer: no column 'palce'; did you mean 'place'\?"),
        ("candidates: {a: x, b: y}, take: 4", r"e\.take: 4 are more than the 3 rows of people"),
        ("candidates: {a: x, b: y}, where: {n: 9}", r"e\.where: no row is \{'n': 9\}"),
        ("candidates: {a: x, b: y}, where: {m: 9}", r"e\.where: no column 'm'"),
    ],
)
def test_what_the_rows_do_not_allow_is_refused(told: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        evaluations(f"rows: people, prompt: ask, {told}")


def test_options_that_only_a_leading_space_tells_apart_are_refused_in_chats() -> None:
    data = "\n  people: {rows: [{name: Ann, city: x, list: [' a', a], place: 0}]}"
    told = "rows: people, options: list, answer: place"
    with pytest.raises(
        SettingsError, match=r"e\.options: is the same text as 0 in row row-0001: 'a'"
    ):
        evaluations(f"{told}, prompt: ask", data=data)
    assert evaluations(f"{told}, prompt: said", data=data)


def test_a_prompt_that_is_the_same_for_every_row_is_refused() -> None:
    prompts = '\n  ask: "{n}"\n  fixed: "Where?"\n  many: ["{name}", "Where?"]'
    told = 'rows: people, candidates: {a: "{city}", b: x}'
    with pytest.raises(
        SettingsError, match=r"prompts\.fixed: is the same for all 3 rows of e; name a column"
    ):
        evaluations(f"{told}, prompt: fixed", prompts=prompts)
    with pytest.raises(SettingsError, match=r"prompts\.many\.1: is the same for all 3 rows"):
        evaluations(f"{told}, prompt: many", prompts=prompts)
    with pytest.raises(SettingsError, match=r"evaluations\.e\.prompt: is the same for all 3 rows"):
        evaluations(f"{told}, prompt: 'Where?'", prompts=prompts)
    with pytest.raises(SettingsError, match="is the same for all 2 rows"):
        evaluations(f"{told}, prompt: ask, where: {{n: 3}}", prompts=prompts)
    assert evaluations(f"{told}, prompt: fixed, take: 1", prompts=prompts)


def test_a_prefill_that_differs_makes_prompts_that_differ() -> None:
    prompts = '\n  ask: {user: "Where?", prefill: "{name} is in"}'
    assert evaluations(
        'rows: people, candidates: {a: "{city}", b: x}, prompt: ask', prompts=prompts
    )


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("rows: poeple, prompt: ask", r"e\.rows: no table 'poeple'; did you mean 'people'\?"),
        ("rows: people, prompt: akk", r"e\.prompt: no prompt 'akk'; did you mean 'ask'\?"),
        ("rows: people, prompts: [ask, akk]", r"e\.prompts: no prompt 'akk'"),
        ("rows: people, prompts: [ask, 'Is {n}?']", r"e\.prompts: of several each needs a name"),
        (
            "rows: people, prompt: ask, arms: [tuend]",
            r"e\.arms: no arm 'tuend'; did you mean 'tuned'\?",
        ),
        (
            "rows: people, prompt: ask, answer: rihgt",
            r"e\.answer: no candidate 'rihgt'; did you mean 'right'",
        ),
        (
            "rows: people, prompt: said, system: S",
            r"e\.system: goes with a chat; prompt 'said' is a text",
        ),
        ("rows: people, prompt: ask, system: '{'", r"e\.system: a '{' that belongs to no"),
        (
            "rows: people, prompt: ask, examples: {rows: x, n: 1, answer: y}",
            r"e\.examples\.rows: no table 'x'",
        ),
        (
            "rows: people, prompts: [ask, ask]",
            r"evaluations\.e: two of its questions are called e\.ask",
        ),
    ],
)
def test_names_that_do_not_exist_are_refused_without_data(told: str, message: str) -> None:
    candidates = 'candidates: {right: "{city}", wrong: x}'
    with pytest.raises(SettingsError, match=message):
        written(evaluations=f"\n  e: {{{told}, {candidates}}}").vocabulary()


# --- few-shot examples -----------------------------------------------------------------------------

_ASKED = 'rows: items.test, options: classes, answer: place, delimiter: "{by}"'


def shown(choose: str, prompt: str = "ask", n: int = 3, draws: int = 1) -> dict[str, Any]:
    examples = (
        f'{{rows: items.train, n: {n}, answer: "{{right}}", choose: {choose}, draws: {draws}}}'
    )
    return evaluations(f"{_ASKED}, prompt: {prompt}, examples: {examples}", **_ITEMS)


@pytest.mark.parametrize("choose", ["fixed", "per_row", "first"])
def test_examples_are_other_rows_set_off_by_blank_lines(choose: str) -> None:
    (found,) = shown(choose).values()
    tables = designed(evaluations=f"\n  e: {{{_ASKED}, prompt: ask}}", **_ITEMS).tables
    known = [f"{row['q']}|{row['right']}" for row in tables["items.train"]]
    beginnings: list[tuple[str, ...]] = []
    for query, row in zip(found.queries, tables["items.test"], strict=True):
        *before, last = query.prompt.split("\n\n")
        assert last == row["q"]
        assert set(before) <= set(known)
        assert len(set(before)) == 3
        beginnings.append(tuple(before))
    assert (len(set(beginnings)) == 1) == (choose != "per_row")
    if choose == "first":
        assert list(beginnings[0]) == known[:3]
    if choose == "fixed":
        assert list(beginnings[0]) == random.Random("few-shot/0/0").sample(known, 3)


def test_each_draw_is_an_evaluation_of_the_same_question() -> None:
    found = shown("fixed", draws=3)
    assert list(found) == ["e", "e-draw-2", "e-draw-3"]
    assert [(one.question, one.draw) for one in found.values()] == [("e", 1), ("e", 2), ("e", 3)]
    assert len({one.queries[0].prompt for one in found.values()}) == 3


def test_examples_in_a_chat_are_earlier_turns_after_the_system_prompt() -> None:
    query = shown("first", prompt="chat", n=2)["e"].queries[0]
    roles = [role for role, _ in contents(query)]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert contents(query)[2][1].startswith("| yes")


def test_rows_that_could_be_their_own_examples_and_too_few_are_refused() -> None:
    examples = 'examples: {rows: people, n: 1, answer: "{city}"}'
    with pytest.raises(
        SettingsError, match=r"e\.examples\.rows: rows that are asked could be their own"
    ):
        evaluations(f"{_PEOPLE}, prompt: ask, {examples}")
    with pytest.raises(
        SettingsError, match=r"e\.examples\.n: 9 are more than the 8 rows of items\.train"
    ):
        shown("fixed", n=9)


def test_a_prefill_goes_with_the_query_and_answers_follow_it_verbatim() -> None:
    if "prefill" not in ScoringQuery.model_fields:
        pytest.skip("queries take no prefill yet")
    prompts = '\n  ask: {user: "{name}?", prefill: "{n}:"}'
    query: Any = evaluations(f"{_PEOPLE.replace('not', ' not')}, prompt: ask", prompts=prompts)[
        "e"
    ].queries[0]
    assert query.prefill == "3:"
    assert query.candidates == {"right": "Rome", "wrong": " not Rome"}
    assert queries(designed(), "where")[0].prefill is None
